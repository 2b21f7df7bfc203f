/** The folder of this library's files (web/, pyodide/, wheels/, models/): by default the parent of this file's. */

const HERE = import.meta.url; // bundlers would read `new URL("…", import.meta.url)` as a file to bundle
let base = new URL("../", HERE);

/** The address of a file in that folder; of the folder itself by default. @param {string} [path] */
export const atBase = (path = "") => new URL(path, base);

/** The address that `baseURL` means, relative to the page and with a slash at its end. @param {unknown} baseURL */
export function folderAddress(baseURL) {
  const text = baseURL instanceof URL ? baseURL.href : baseURL;
  const page = /** @type {any} */ (globalThis).document?.baseURI ?? location.href;
  if (typeof text !== "string" || !URL.canParse(text, page)) {
    throw new TypeError(`baseURL must be the address of a folder, not ${JSON.stringify(text)}`);
  }
  const url = new URL(text, page);
  url.search = url.hash = "";
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/** @param {URL} url */
export function setBase(url) {
  base = url;
}

/**
 * A worker of the library. Browsers start none from a script of another origin, so there a script of
 * the page's own origin imports it.
 *
 * @param {string} path of its script in the library's folder
 */
export function startWorker(path) {
  const script = atBase(path);
  if (script.origin === location.origin) return new Worker(script, { type: "module" });
  const importing = new Blob([`import ${JSON.stringify(script.href)};`], { type: "text/javascript" });
  return new Worker(URL.createObjectURL(importing), { type: "module" });
}
