// Prompt, settings and model in the address: a link restores them, and runs nothing.

import { NAMES } from "./settings.js";

/** @typedef {import("./settings.js").Values} Values */

/**
 * @param {string} prompt
 * @param {Values} settings
 * @param {string[]} stop stop texts
 * @param {{model: string | null, dtype: string}} weights a hub id or URL, null for the embedded model
 * @returns {string} a URL with all of it in the fragment, which no server ever sees
 */
export function linkTo(prompt, settings, stop, { model, dtype }) {
  const fields = new URLSearchParams({ prompt });
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
 * @returns {{prompt: string | null, settings: Partial<Values>, stop: string[], model: string | null, dtype: string | null}}
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
  return { prompt, settings, stop: fields.getAll("stop"), model, dtype };
}
