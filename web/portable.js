/** Arguments in a form that the worker accepts. */

/** A source in a form that the worker accepts: an array of files, an absolute URL. @param {any} source */
export function portable(source) {
  if (typeof FileList !== "undefined" && source instanceof FileList) return [...source];
  return isRelative(source) ? new URL(source, globalThis.document?.baseURI ?? location.href).href : source;
}

/** Whether this is a path and not a repository's name (as in Python). @param {any} source */
const isRelative = (source) =>
  typeof source === "string" && !source.includes("://") && /^\.{0,2}\/|\/$|^[^@]*\/[^@]*\//.test(source);

/** Settings in a form that the worker accepts. @param {any} settings */
export function portableSettings({ constraint, ...settings }) {
  if (constraint === undefined || constraint === null) return settings;
  return { ...settings, constraint: new URL(constraint, globalThis.document?.baseURI ?? location.href).href };
}
