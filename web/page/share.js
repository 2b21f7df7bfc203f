// Prompt, text, settings and model in the address: a link restores them, and runs nothing.

import { NAMES } from "./settings.js";

/**
 * @typedef {import("./settings.js").Values} Values
 * @typedef {object} Linked a text of a link
 * @property {string} text
 * @property {number[]} ids its tokens; empty: those that the model gives it
 * @property {string} branch the name of the branch that it is; empty: of none
 */

const MOST_TOKENS = 4096; // of a link

/**
 * @param {string} prompt
 * @param {Linked | null} linked the text of the page
 * @param {Values} settings
 * @param {string[]} stop stop texts
 * @param {{model: string | null, dtype: string}} weights a hub id or URL, null for the embedded model
 * @returns {string} a URL with all of it in the fragment, which no server ever sees
 */
export function linkTo(prompt, linked, settings, stop, { model, dtype }) {
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
  return url.href;
}

/**
 * @param {string} hash the fragment with its "#"
 * @returns {{prompt: string | null, linked: Linked | null, settings: Partial<Values>, stop: string[], model: string | null, dtype: string | null}}
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
  const ids = (fields.get("ids") ?? "").split(" ").map((id) => (/^\d{1,9}$/.test(id) ? Number(id) : -1));
  const sound = ids.length <= MOST_TOKENS && !ids.includes(-1);
  const linked = text === null ? null : { text, ids: sound ? ids : [], branch: branch ?? "" };
  return { prompt, linked, settings, stop: fields.getAll("stop"), model, dtype };
}
