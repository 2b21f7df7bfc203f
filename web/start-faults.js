/** Diagnosis of a failed start of Python: which of the site's files failed, and the remedy. */

const SITE = new URL("../", import.meta.url);
const CORE = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"];
const EMPTY_MODULE = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]); // "\0asm", version 1

/** WebAssembly cannot run here; the message has the remedy. */
export class NoWebAssembly extends Error {}

/** Throws if the browser or the page's policy forbids WebAssembly. */
export function requireWebAssembly() {
  if (typeof WebAssembly !== "object") {
    throw new NoWebAssembly("this browser has WebAssembly turned off; turn it on for this site");
  }
  try {
    new WebAssembly.Module(EMPTY_MODULE);
  } catch {
    throw new NoWebAssembly(
      "the Content-Security-Policy that web/worker.js was sent with forbids WebAssembly; add 'wasm-unsafe-eval' to its script-src",
    );
  }
}

/**
 * The result of `load`, or the error for which Pyodide's WebAssembly could not be instantiated: Pyodide
 * (314.0, getInstantiateWasmFunc) logs that error in two lines and leaves its promise pending.
 *
 * @template T @param {() => Promise<T>} load @returns {Promise<T>}
 */
export async function withWasmErrors(load) {
  const { warn } = console;
  /** @type {Promise<never>} */
  const failed = new Promise((_, reject) => {
    let announced = false;
    console.warn = (...args) => {
      warn.apply(console, args);
      if (announced) reject(args[0]);
      announced = args[0] === "wasm instantiation failed!";
    };
  });
  try {
    return await Promise.race([load(), failed]);
  } finally {
    console.warn = warn;
  }
}

/**
 * The fault of the first required file that differs from the build, in one sentence with a remedy;
 * "" if all files are correct. Called after a failure only.
 *
 * @returns {Promise<string>}
 */
export async function faultyFile() {
  const manifest = await json("manifest.json");
  const lock = await json("pyodide/pyodide-lock.json");
  const wheels = Object.values(lock?.packages ?? {}).map(({ file_name }) => `pyodide/${file_name}`);
  const needed = ["pyodide/pyodide-lock.json", ...CORE.map((name) => `pyodide/${name}`), "web/gpu.js", ...wheels];
  const faults = await Promise.all(needed.map((path) => faultOf(new URL(path, SITE), manifest)));
  return faults.find(Boolean) ?? "";
}

/** @param {URL} url @param {Record<string, {sha256: string}> | null} manifest of the site */
async function faultOf(url, manifest) {
  const path = url.href.replace(SITE.href, "");
  let response, data;
  try {
    response = await fetch(url);
    data = await response.arrayBuffer();
  } catch {
    return `${path} cannot be fetched; check the connection and what blocks requests in this browser, then load the page again`;
  }
  if (!response.ok) {
    return `the server answers ${response.status} for ${path}; the site has to be published with all its files`;
  }
  const stated = manifest?.[path]?.sha256;
  if (!stated || stated === (await sha256(data))) return "";
  return `${path} is not the file that the site was built with; load the page again without the browser's cache, and if that does not help, publish the site again`;
}

/** A file of the site; null if there is none. @param {string} path */
async function json(path) {
  try {
    return await (await fetch(new URL(path, SITE))).json();
  } catch {
    return null;
  }
}

/** @param {ArrayBuffer} data */
async function sha256(data) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
