/** Python in this worker: its start, once, from the site's own files, and values to and from it. */

import { errorOf } from "./rpc.js";
import { findSnapshot, withInstances, withMemory } from "./snapshot.js";
import { NoWebAssembly, faultyFile, requireWebAssembly, withWasmErrors } from "./start-faults.js";

const PYODIDE = new URL("../pyodide/", import.meta.url);
const LOCK = new URL("pyodide-lock.json", PYODIDE);
const GPU_SCRIPT = new URL("./gpu.js", import.meta.url); // the package's; the site has it here
const PACKAGE = "gpt2-wgpu";

/** @typedef {(stage: "python" | "package", report: {state: "start" | "done", bytes?: number, cached?: boolean, snapshot?: string}) => void} Report */

/** @typedef {(reason: string, last?: Promise<void>) => void} OnFatal */

/** @type {Promise<any> | null} */
let started = null;
/** Python, once it has started. @type {any} */
let running = null;
/** Whether the largest of Python's files, its WebAssembly, has come. */
let came = false;
/** Called when it comes. @type {Set<() => void>} */
const awaiting = new Set();

/**
 * `gpt2_wgpu.integrations.web_worker`, Python's side of this worker; `pyodide` itself is its property.
 *
 * @param {Report} report @param {OnFatal} onFatal called when Python can run nothing any more, with
 *     the reason and what must finish before this worker ends
 * @returns {Promise<{pyodide: any, engine: any}>}
 */
export async function startPython(report, onFatal) {
  if (started) {
    report("python", { state: "start" });
    const python = await started;
    for (const stage of /** @type {const} */ (["python", "package"])) {
      report(stage, { state: "done", bytes: 0, cached: true });
    }
    return python;
  }
  started = start(report, onFatal);
  try {
    const python = await started;
    running = python.pyodide;
    return python;
  } catch (error) {
    started = null; // a connection may come back
    awaiting.clear();
    throw errorOf({ name: "PythonStartError", message: `Python did not start: ${await causeOf(error)}` });
  }
}

/**
 * Calls `callback`, once, when Python's large files have come; never if its start fails before.
 *
 * @param {() => void} callback
 */
export function onceFilesCame(callback) {
  if (came) callback();
  else awaiting.add(callback);
}

function filesCame() {
  came = true;
  for (const callback of awaiting) callback();
  awaiting.clear();
}

/** A plain value as Python's: dict, list, str, number. @param {any} value */
export const inPython = (value) => running.toPy(value, { defaultConverter: byEntries });

/** An object with an entry "constructor" is none to `toPy`. @param {any} value @param {(value: any) => any} convert */
function byEntries(value, convert) {
  const plain = value && Object.getPrototypeOf(value) === Object.prototype;
  return plain ? convert(new Map(Object.entries(value))) : value;
}

/** What Python returned, dicts as plain objects, in which None is null. @param {any} proxy */
export function plain(proxy) {
  if (!proxy?.toJs) return proxy; // a number or a string
  const objectOf = (/** @type {Iterable<[string, any]>} */ entries) =>
    Object.fromEntries(Array.from(entries, ([key, value]) => [key, value ?? null]));
  const value = proxy.toJs({ dict_converter: objectOf });
  proxy.destroy();
  return value;
}

/** In one sentence, with a remedy. @param {any} error */
async function causeOf(error) {
  if (error instanceof NoWebAssembly) return error.message;
  const reason = String(error?.message ?? error).trim().split("\n").pop();
  return (await faultyFile()) || `${reason}. Check the connection and reload the page`;
}

/** @param {Report} report @param {OnFatal} onFatal */
async function start(report, onFatal) {
  report("python", { state: "start" });
  requireWebAssembly();
  const [lock, { loadPyodide }] = await Promise.all([
    text(LOCK),
    import(new URL("pyodide.mjs", PYODIDE).href),
    import(GPU_SCRIPT.href), // without it the Python side would need eval
  ]);
  const begin = (/** @type {any} */ extra) =>
    withWasmErrors(() =>
      withInstances(filesCame, () =>
        loadPyodide({
          indexURL: PYODIDE.href,
          packageBaseUrl: PYODIDE.href,
          lockFileContents: lock,
          convertNullToNone: true, // a setting of null is the default, as one that is left out
          ...extra,
        }),
      ),
    );
  const found = await findSnapshot(lock);
  // Its packages are downloaded while Python starts. If that fails, `finish` tries again and reports it.
  if (!found) return finish(await begin({ packages: [PACKAGE] }), report, onFatal);
  const { memory, forget } = found;
  try {
    const bytes = (await memory).byteLength;
    const pyodide = await withMemory(bytes, () => begin({ _loadSnapshot: memory }));
    delete pyodide._api.config._loadSnapshot; // 30 MB, which it has copied
    pyodide.runPython("import random; random.seed()"); // else every start has the same random numbers
    const broken = (/** @type {string} */ reason) => onFatal(reason, forget());
    return await finish(pyodide, report, broken, "used");
  } catch (error) {
    await forget();
    const reason = /** @type {Error} */ (error).message ?? String(error);
    return finish(await begin({}), report, onFatal, reason);
  }
}

/**
 * Loads the packages' files, which are not part of a snapshot.
 *
 * @param {any} pyodide @param {Report} report @param {OnFatal} onFatal
 * @param {string} [snapshot] "used", or why not
 */
async function finish(pyodide, report, onFatal, snapshot) {
  pyodide._api.on_fatal = (/** @type {any} */ error) => onFatal(error?.message ?? String(error));
  report("python", { state: "done", ...fetched(/\/pyodide\//), ...(snapshot && { snapshot }) });
  report("package", { state: "start" });
  /** @type {string[]} */
  const faults = [];
  await pyodide.loadPackage([PACKAGE], {
    messageCallback: () => {},
    errorCallback: (/** @type {string} */ line) => faults.push(line),
  });
  if (faults.length) throw new Error(faults.join("; "));
  const engine = pyodide.pyimport("gpt2_wgpu.integrations.web_worker");
  report("package", { state: "done", ...fetched(/\.whl$/) });
  return { pyodide, engine };
}

/** @param {URL} url */
async function text(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname}: status ${response.status}`);
  return response.text();
}

/** Bytes of what was fetched, and whether none of them came over a network. @param {RegExp} pattern */
function fetched(pattern) {
  const entries = /** @type {PerformanceResourceTiming[]} */ (performance.getEntriesByType("resource"));
  const ours = entries.filter(({ name }) => pattern.test(name));
  const bytes = ours.reduce((sum, entry) => sum + entry.encodedBodySize, 0);
  return { bytes, cached: bytes > 0 && ours.every((entry) => entry.transferSize === 0) };
}
