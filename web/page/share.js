// Prompt, text, settings and model in the address: a link restores them, and runs nothing.

import { NAMES } from "./settings.js";

/**
 * @typedef {import("./settings.js").Values} Values
 * @typedef {object} Linked a text of a link
 * @property {string} text
 * @property {number[]} ids its tokens; empty: those that the model gives it
 * @property {string} branch the name of the branch that it is; empty: of none
 */

/**
 * @typedef {object} Texts the text of a link, with other branches
 * @property {Linked | null} linked the text
 * @property {Linked[]} others
 * @property {number} place of the text among them
 */

const MOST_TOKENS = 4096; // that a link has of a text; of one with more it has the text alone
const MOST_OTHERS = 19;
const MOST_CHARACTERS = 32_000; // of a link with branches: browsers show no more of an address

/**
 * @param {string} prompt
 * @param {Texts} texts of the page
 * @param {Values} settings
 * @param {string[]} stop stop texts
 * @param {{model: string | null, dtype: string}} weights a hub id or URL, null for the embedded model
 * @returns {{href: string, left: Linked[]}} a URL with all of it in the fragment, which no server ever sees, and the
 *     branches that it has no room for
 */
export function linkTo(prompt, { linked: shown, others, place }, settings, stop, { model, dtype }) {
  const linked = shown && readable(shown);
  const fields = new URLSearchParams({ prompt });
  if (linked) fields.set("text", linked.text);
  if (linked?.ids.length) fields.set("ids", linked.ids.join(" "));
  if (linked?.branch) fields.set("branch", linked.branch);
  for (const name of NAMES) fields.set(name, String(settings[name]));
  for (const text of stop) fields.append("stop", text);
  if (model) fields.set("model", model);
  if (dtype) fields.set("dtype", dtype);
  const url = new URL(location.href);
  url.hash = fields.toString();
  /** @type {Linked[]} */
  const left = [];
  for (const [i, other] of others.entries()) {
    const also = `&${new URLSearchParams({ also: packed(readable(other), /** @type {Linked} */ (linked)) })}`;
    if (url.href.length + also.length > MOST_CHARACTERS) {
      left.push(other);
      if (i < place) place -= 1;
    } else url.hash += also;
  }
  if (left.length < others.length) url.hash += `&place=${place}`;
  return { href: url.href, left };
}

/** A text without its tokens, if they are more than a link is read with. @param {Linked} text @returns {Linked} */
function readable(text) {
  return text.ids.length > MOST_TOKENS ? { ...text, ids: [] } : text;
}

/** A branch as a field: what it has besides the beginning that it shares with the text. @param {Linked} branch @param {Linked} of */
function packed({ text, ids, branch }, of) {
  const [characters, tokens] = [common(text, of.text), common(ids, of.ids)];
  return JSON.stringify([characters, text.slice(characters), tokens, ids.slice(tokens).join(" "), branch]);
}

/** @param {string} field @param {Linked} of @returns {Linked[]} the branch; none if the field is not one */
function unpacked(field, of) {
  try {
    const [characters, text, tokens, ids, branch] = JSON.parse(field);
    const isBranch = [text, ids, branch].every((each) => typeof each === "string");
    if (!isBranch || ![characters, tokens].every((each) => Number.isInteger(each) && each >= 0)) return [];
    return [{ text: of.text.slice(0, characters) + text, ids: [...of.ids.slice(0, tokens), ...idsOf(ids)], branch }];
  } catch {
    return [];
  }
}

/** Number of equal items at the front. @param {ArrayLike<unknown>} a @param {ArrayLike<unknown>} b */
function common(a, b) {
  let count = 0;
  while (count < Math.min(a.length, b.length) && a[count] === b[count]) count++;
  return count;
}

/** The ids of a field; none if they are not ids. @param {string | null} field */
function idsOf(field) {
  const ids = (field ?? "").split(" ").map((id) => (/^\d{1,9}$/.test(id) ? Number(id) : -1));
  return ids.length <= MOST_TOKENS && !ids.includes(-1) ? ids : [];
}

/**
 * @param {string} hash the fragment with its "#"
 * @returns {{prompt: string | null, texts: Texts, settings: Partial<Values>, stop: string[], model: string | null, dtype: string | null, damaged: unknown}}
 *     `damaged`: whether tokens or branches cannot be read, or characters, which are U+FFFD then
 */
export function readLink(hash) {
  const fields = new URLSearchParams(hash.slice(1));
  /** @type {Partial<Values>} */
  const settings = {};
  for (const name of NAMES) {
    const value = fields.get(name);
    if (value !== null && value.trim() !== "" && Number.isFinite(Number(value))) {
      settings[name] = Number(value);
    }
  }
  const [prompt, model, dtype] = ["prompt", "model", "dtype"].map((name) => fields.get(name));
  const [text, branch] = ["text", "branch"].map((name) => fields.get(name));
  const linked = text === null ? null : { text, ids: idsOf(fields.get("ids")), branch: branch ?? "" };
  const also = linked ? fields.getAll("also").slice(0, MOST_OTHERS) : [];
  const others = also.flatMap((field) => unpacked(field, /** @type {Linked} */ (linked)));
  const texts = { linked, others, place: Number(fields.get("place")) || 0 };
  const lost = [...fields.values()].join().split("\ufffd").length > hash.split(/\ufffd|%ef%bf%bd/i).length;
  const damaged = lost || others.length < also.length || (fields.get("ids") && !linked?.ids.length);
  return { prompt, texts, settings, stop: fields.getAll("stop"), model, dtype, damaged };
}
