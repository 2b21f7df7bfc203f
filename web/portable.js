/** Arguments in a form that the worker accepts. */

/** A source in a form that the worker accepts: an array of files, an absolute URL. @param {any} source @param {any} [hub] as in `load` */
export function portable(source, hub) {
  if (typeof FileList !== "undefined" && source instanceof FileList) return [...source];
  if (!isRelative(source) || isOn(hub, source)) return source;
  return new URL(source, globalThis.document?.baseURI ?? location.href).href;
}

/** Whether this address, without https://, is one of that host. @param {any} hub @param {string} source */
const isOn = (hub, source) =>
  typeof hub === "string" && URL.canParse(hub) && source.trim().toLowerCase().startsWith(`${new URL(hub).host}/`);

const OF_HUB_OR_HOME = /^\s*(?:~|(?:www\.)?huggingface\.co\/|hf\.co\/)/i; // as browsers show addresses, and shells

/** Whether this is a path and not a repository's name (as in Python). @param {any} source */
const isRelative = (source) =>
  typeof source === "string" &&
  !source.includes("://") &&
  !OF_HUB_OR_HOME.test(source) &&
  /^\.{0,2}\/|\/$|^[^@]*\/[^@]*\//.test(source);

/** Settings in a form that the worker accepts. @param {any} settings */
export function portableSettings({ constraint, ...settings }) {
  if (constraint === undefined || constraint === null) return settings;
  return { ...settings, constraint: new URL(constraint, globalThis.document?.baseURI ?? location.href).href };
}
