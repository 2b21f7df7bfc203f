/**
 * Sources of models: this site, a repository on the Hugging Face Hub, the URL of a directory, or
 * files the visitor picked.
 */

import { presetError, probe, reach, refusal, requireSmall, shown, smallText, weightsError } from "./downloads.js";
import { tokenizerInstead, weightsInstead } from "./other-formats.js";

/** @typedef {import("./storage.js").RemoteFile} RemoteFile */
/**
 * @typedef {{kind: "files", name: string, files: Map<string, Blob>}} PickedSource
 * @typedef {{kind: "site" | "hub" | "url", id: string, name: string, plan: (signal?: AbortSignal) => Promise<RemoteFile[]>}} RemoteSource
 */

export const HUB = "https://huggingface.co";
const HUB_HOSTS = ["huggingface.co", "www.huggingface.co", "hf.co"]; // these three as in gpt2_wgpu/weights/sources.py
const HUB_PAGE = /^\/((?!\.)[\w.-]+(?:\/(?!\.)[\w.-]+)?)(?:\/discussions(?:\/.*)?|\/(?:tree|blob|resolve|raw|commits?)(?:\/([^/]+).*)?)?\/?$/;
const OTHER_PAGES = ["datasets", "spaces", "models", "docs", "collections", "papers", "settings"];
const WHOLE = /^https?:\/\//i;
const OTHER_SCHEME = /^(?!hf:\/\/)[a-z][a-z\d+.-]*:/i;
const DEVICE_PATH = /^([a-z]|file|blob):|^~|\\/i;
const SITE = new URL("../", import.meta.url);
const EMBEDDED = "fairytales";

/** Short names, as in Python. @type {Record<string, string>} */
export const PRESETS = {
  // begin: presets (written by scripts/generate_web.py from gpt2_wgpu/weights/presets.py)
  gpt2_base_en: "openai-community/gpt2",
  gpt2_medium_en: "openai-community/gpt2-medium",
  gpt2_large_en: "openai-community/gpt2-large",
  gpt2_extra_large_en: "openai-community/gpt2-xl",
  gpt2: "openai-community/gpt2",
  "gpt2-medium": "openai-community/gpt2-medium",
  "gpt2-large": "openai-community/gpt2-large",
  "gpt2-xl": "openai-community/gpt2-xl",
  distilgpt2: "distilbert/distilgpt2",
  // end: presets
};

const CONFIG = "config.json";
const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SHARD = /^[^./\\:\0\p{Surrogate}][^/\\:\0\p{Surrogate}]*\.safetensors$/u; // a bare name, as in Python
const NUMBERED = /^((?:pytorch_)?model)-(\d{5})-of-(\d{5})\.safetensors$/;
const LONE_SURROGATE = /\p{Surrogate}/u;
const WHOLE_TOKENIZER = "tokenizer.json"; // these three as in gpt2_wgpu/checkpoint_files.py
const TOKENIZER_PARTS = [["vocab.json", "vocabulary.json"], ["merges.txt"]];
const EXTRAS = ["generation_config.json", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"];

/**
 * @param {any} source
 * @param {{hub?: string}} [options] `hub`: another host that serves what the Hub serves
 * @returns {Promise<PickedSource | RemoteSource>}
 */
export async function parse(source, { hub = HUB } = {}) {
  if (source instanceof FileSystemDirectoryHandle) return picked(source.name, await walk(source));
  if (Array.isArray(source)) {
    return picked("", source.map((file) => [file.webkitRelativePath || file.name, file]));
  }
  if (typeof source !== "string" || !source.trim()) {
    const given = typeof source === "string" ? "an empty text" : Object.prototype.toString.call(source);
    throw presetError(`a model is named by text, or given as files, not by ${given}`);
  }
  const text = source.trim();
  if (text === EMBEDDED) return onSite(EMBEDDED, new URL(`models/${EMBEDDED}/`, SITE));
  const page = pageOfHub(text, hub);
  if (page) return onHub(page.id, page.revision, hub);
  if (WHOLE.test(text)) return atAddress(text);
  if (OTHER_SCHEME.test(text) || DEVICE_PATH.test(text)) {
    const files = DEVICE_PATH.test(text) ? "; to read files of this device, pass the File objects of an input element" : "";
    throw presetError(`${shown(text)} is not an address that starts with https:// or http://${files}`);
  }
  const repository = PRESETS[text] ?? text.replace(/^hf:\/\//, "");
  const [, id, revision = "main"] = /^((?:[\w.-]+\/)?[\w.-]+)(?:@([\w./-]+))?$/.exec(repository) ?? [];
  if (id && (id.includes("/") || text.startsWith("hf://"))) return onHub(id, revision, hub);
  const known = [EMBEDDED, ...Object.keys(PRESETS)].join(", ");
  throw presetError(`unknown model '${text.slice(0, 80)}': choose from ${known}, the address of a directory, or a hub id such as owner/name`);
}

/** The models published with this site: [{source, name}]. */
export async function onThisSite() {
  const paths = Object.keys(await siteManifest());
  const names = new Set(paths.map((path) => /^models\/([^/]+)\//.exec(path)?.[1]).filter((name) => name !== undefined));
  return [...names].map((name) => ({
    source: name === EMBEDDED ? name : new URL(`models/${encodeURIComponent(name)}/`, SITE).href,
    name,
  }));
}

/** @returns {Promise<Record<string, {bytes: number, sha256?: string, etag?: string}>>} */
async function siteManifest(/** @type {AbortSignal | undefined} */ signal = undefined) {
  const url = new URL("manifest.json", SITE).href;
  const response = await reach(url, { signal });
  if (!response.ok) throw refusal(response, url);
  const fits = (/** @type {any} */ value) => value instanceof Object && Object.values(value).every((file) => Number.isFinite(file?.bytes));
  return answerOf(response, url, fits, "is not the list of this site's files; build the site again");
}

/** What a JSON answer holds. @param {Response} response @param {string} url @param {(value: any) => boolean} fits @param {string} complaint */
async function answerOf(response, url, fits, complaint) {
  const text = await smallText(response, url);
  try {
    const value = JSON.parse(text);
    if (fits(value)) return value;
  } catch {
    // not JSON, but a web page in most cases
  }
  throw presetError(`${shown(url)} ${complaint}`);
}

/** Whether this lists a repository's files. @param {any} value */
function isListing(value) {
  return (
    typeof value?.sha === "string" &&
    Array.isArray(value.siblings) &&
    value.siblings.every((/** @type {any} */ file) => typeof file?.rfilename === "string" && Number.isFinite(file.size))
  );
}

/** @param {string} text @returns {RemoteSource} */
function atAddress(text) {
  const url = addressOf(text);
  url.hash = url.search = "";
  if (/\.(safetensors|json|txt)$/.test(url.pathname)) url.pathname = url.pathname.replace(/[^/]+$/, "");
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  const name = decodeURIComponent(url.pathname.split("/").filter(Boolean).pop() ?? url.host);
  if (url.href.startsWith(new URL("models/", SITE).href)) return onSite(name, url);
  return { kind: "url", id: url.href, name, plan: (signal) => choose(unlisted(url, signal), url.href) };
}

/** @param {string} text */
function addressOf(text) {
  try {
    const url = new URL(text);
    decodeURIComponent(url.pathname); // it becomes part of a name
    return url;
  } catch {
    throw presetError(`'${text.slice(0, 80)}' is not a valid address (example: https://example.org/model/)`);
  }
}

/** The repository whose page this is, or whose files' page, as in Python. @param {string} text @param {string} hub */
function pageOfHub(text, hub) {
  const mirror = addressOf(hub);
  const hosts = [...HUB_HOSTS, mirror.host];
  const bare = hosts.includes(text.split("/")[0].toLowerCase()); // as browsers show it
  if (!bare && !WHOLE.test(text)) return null;
  const { host, pathname } = addressOf(bare ? `https://${text}` : text);
  const ofHub = HUB_HOSTS.includes(host);
  const above = ofHub ? "" : mirror.pathname.replace(/\/+$/, "");
  if (!hosts.includes(host) || !pathname.startsWith(`${above}/`)) return null;
  const [, id, revision = "main"] = HUB_PAGE.exec(pathname.slice(above.length)) ?? [];
  if (id && !OTHER_PAGES.includes(id.split("/")[0])) return { id, revision: decodeURIComponent(revision) };
  if (!ofHub) return null; // a mirror may have other directories
  throw presetError(`'${shown(text)}' is not the page of a model on the Hub (example: ${HUB}/owner/name)`);
}

/** @param {string} name @param {URL} url @returns {RemoteSource} */
function onSite(name, url) {
  const plan = async (/** @type {AbortSignal | undefined} */ signal) => {
    const folder = decodeURIComponent(url.href.slice(SITE.href.length));
    const files = Object.entries(await siteManifest(signal))
      .filter(([path]) => path.startsWith(folder))
      .map(([path, { bytes, sha256, etag }]) => ({
        ...remote(path.slice(folder.length), url, bytes, sha256),
        etag,
      }));
    return choose(listed(files, signal), url.href);
  };
  return { kind: "site", id: name === EMBEDDED ? name : url.href, name, plan };
}

/** @param {string} id @param {string} revision @param {string} hub @returns {RemoteSource} */
function onHub(id, revision, hub) {
  const plan = async (/** @type {AbortSignal | undefined} */ signal) => {
    const root = hub.replace(/\/+$/, "");
    const url = new URL(`${root}/api/models/${id}/revision/${encodeURIComponent(revision)}?blobs=true`);
    const response = await reach(url.href, { signal });
    if (response.status === 401 || response.status === 404) {
      throw presetError(`'${id}' is not a public repository on the Hub, or has no revision '${revision}'; check the spelling`);
    }
    if (!response.ok) throw refusal(response, url.href);
    /** @type {{sha: string, siblings: {rfilename: string, size: number, lfs?: {sha256?: string}}[]}} */
    const { sha, siblings } = await answerOf(response, url.href, isListing, "does not answer as the Hub does");
    const folder = new URL(`${root}/${id}/resolve/${sha}/`); // a commit: its files never change
    const printable = siblings.filter(({ rfilename }) => !LONE_SURROGATE.test(rfilename));
    const files = printable.map(({ rfilename, size, lfs }) => ({
      ...remote(rfilename, folder, size, lfs?.sha256),
      pinned: true,
    }));
    return choose(listed(files, signal), `${id} on the Hub`);
  };
  const at = revision === "main" ? "" : `@${revision}`;
  return { kind: "hub", id: `hf://${id}${at}`, name: `${id}${at}`, plan };
}

/** @param {string} name @param {URL} folder @param {number} bytes @param {string} [sha256] @returns {RemoteFile} */
function remote(name, folder, bytes, sha256) {
  const path = name.split("/").map(encodeURIComponent).join("/");
  return { name, url: new URL(path, folder).href, bytes, sha256 };
}

/** A lookup of files, in a known list or a directory without one. `names`: all file names, if known. @typedef {{names: string[], find: (name: string) => Promise<RemoteFile | null>, text: (file: RemoteFile) => Promise<string>}} Directory */

/** @param {AbortSignal} [signal] @returns {(file: RemoteFile) => Promise<string>} */
const textOf = (signal) => async (file) => {
  const response = await reach(file.url, { signal });
  if (!response.ok) throw refusal(response, file.url);
  return smallText(response, file.url);
};

/** @param {RemoteFile[]} files @param {AbortSignal} [signal] @returns {Directory} */
function listed(files, signal) {
  const byName = new Map(files.map((file) => [file.name, file]));
  // A folder is known by its name: onnx/model.onnx is an ONNX export.
  const names = [...new Set(files.map(({ name }) => name.split("/")[0]))];
  return { names, find: async (name) => byName.get(name) ?? null, text: textOf(signal) };
}

/** @param {URL} folder @param {AbortSignal} [signal] @returns {Directory} */
function unlisted(folder, signal) {
  const find = (/** @type {string} */ name) => probe(new URL(encodeURIComponent(name), folder).href, name, signal);
  return { names: [], find, text: textOf(signal) };
}

/**
 * The files of a model, among those of a directory.
 *
 * @param {Directory} directory @param {string} where @returns {Promise<RemoteFile[]>}
 */
async function choose(directory, where) {
  const config = await directory.find(CONFIG);
  if (!config) {
    const kind = weightsInstead(directory.names);
    throw presetError(`${shown(where)} has no ${CONFIG}${kind ? `: ${kind}` : ", so it holds no model"}`);
  }
  const weights = await weightsOf(directory, where);
  const extras = await Promise.all(EXTRAS.map((name) => directory.find(name)));
  const small = [config, ...(await tokenizerOf(directory, where)), ...extras.filter((file) => file !== null)];
  for (const { name, bytes } of small) requireSmall(bytes, `${where}/${name}`);
  return [config, ...weights, ...small.slice(1)];
}

/** @param {Directory} directory @param {string} where @returns {Promise<RemoteFile[]>} */
async function tokenizerOf(directory, where) {
  const whole = await directory.find(WHOLE_TOKENIZER);
  if (whole) return [whole];
  const files = [];
  for (const names of TOKENIZER_PARTS) {
    const file = await first(directory, names);
    if (!file) throw presetError(`${where} has no tokenizer: ${WHOLE_TOKENIZER}, or vocab.json with merges.txt${tokenizerInstead(directory.names)}`);
    files.push(file);
  }
  return files;
}

/** @param {Directory} directory @param {string} where */
async function weightsOf(directory, where) {
  const single = await directory.find(SINGLE);
  if (single) return [single];
  const index = await directory.find(INDEX);
  const numbered = index ? null : numberedShards(directory.names);
  if (!index && !numbered) {
    const kind = weightsInstead(directory.names);
    throw presetError(`${shown(where)} has no ${SINGLE}${kind ? `, but ${kind}` : "; convert its weights with transformers' save_pretrained()"}`);
  }
  if (index) requireSmall(index.bytes, index.url);
  const names = index ? shardsOf(await directory.text(index), index.url) : (numbered ?? []);
  const shards = await Promise.all(names.map((name) => directory.find(name)));
  const missing = names.filter((_, i) => !shards[i]);
  if (missing.length) {
    const lacking = missing.slice(0, 3).map(shown).join(", ");
    const without = index ? "" : `, and the index ${INDEX} is, too`;
    throw weightsError(`${shown(where)}: ${missing.length} of ${names.length} shards are missing: ${lacking}${without}`);
  }
  return [index, ...shards].filter((file) => file !== null);
}

/** All shards of a set that is numbered in the names; null if there is none. @param {string[]} names */
function numberedShards(names) {
  const [found] = names.map((name) => NUMBERED.exec(name)).filter((match) => match !== null);
  if (!found || Number(found[3]) > 1000) return null;
  const numbers = Array.from({ length: Number(found[3]) }, (_, i) => String(i + 1).padStart(5, "0"));
  return numbers.map((number) => `${found[1]}-${number}-of-${found[3]}.safetensors`);
}

/** @param {string} text @param {string} where @returns {string[]} */
function shardsOf(text, where) {
  let map;
  try {
    map = JSON.parse(text).weight_map;
  } catch {
    throw weightsError(`${where}: the index is not JSON`);
  }
  const names = [...new Set(Object.values(map ?? {}))].sort();
  const odd = names.find((name) => typeof name !== "string" || !SHARD.test(name));
  if (!names.length || odd !== undefined) {
    throw weightsError(`${where}: the index must map tensors to .safetensors files beside it${odd === undefined ? "" : `, not to '${shown(odd)}'`}`);
  }
  return /** @type {string[]} */ (names);
}

/** @param {Directory} directory @param {string[]} names */
async function first(directory, names) {
  for (const name of names) {
    const file = await directory.find(name);
    if (file) return file;
  }
  return null;
}

/** Files below a folder, with their paths. @param {FileSystemDirectoryHandle} directory @returns {Promise<[string, File][]>} */
async function walk(directory, path = "") {
  /** @type {[string, File][]} */
  const found = [];
  for await (const entry of directory.values()) {
    if (entry.kind === "file") found.push([path + entry.name, await entry.getFile()]);
    else if (!path) found.push(...(await walk(entry, `${entry.name}/`)));
  }
  return found;
}

/**
 * The model among picked files: those in the folder of the topmost config.json.
 *
 * @param {string} folder @param {[string, File][]} entries @returns {Promise<PickedSource>}
 */
async function picked(folder, entries) {
  const [config] = entries
    .map(([path]) => path)
    .filter((path) => path.split("/").pop() === CONFIG)
    .sort((a, b) => a.split("/").length - b.split("/").length);
  if (config === undefined) {
    const kind = weightsInstead(entries.map(([path]) => path.split("/").pop() ?? ""));
    if (kind) throw presetError(`there is no ${CONFIG} among these files: ${kind}`);
    throw presetError(`there is no ${CONFIG} among these files; pick the folder that holds config.json, ${SINGLE} and the tokenizer's files`);
  }
  const beside = config.slice(0, -CONFIG.length);
  const name = beside.split("/").filter(Boolean).pop() ?? (folder || "picked files");
  const own = new Map(entries.filter(([path]) => path.startsWith(beside)).map(([path, file]) => [path.slice(beside.length), file]));
  const fileOf = (/** @type {string} */ path) => /** @type {File} */ (own.get(path));
  const all = [...own].map(([path, { size }]) => ({ name: path, url: path, bytes: size }));
  const chosen = await choose({ ...listed(all), text: (file) => fileOf(file.name).text() }, name);
  return { kind: "files", name, files: new Map(chosen.map((file) => [file.name, fileOf(file.name)])) };
}
