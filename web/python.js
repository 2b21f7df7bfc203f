/** Pyodide and the package, started once in this worker, from files beside this site. */

import { errorOf } from "./rpc.js";

const PYODIDE = new URL("../pyodide/", import.meta.url);
const LOCK = new URL("pyodide-lock.json", PYODIDE);
const GPU_SCRIPT = new URL("./gpu.js", import.meta.url); // the package's; the site has it here
const PACKAGE = "gpt2-wgpu";

/** @typedef {(stage: "python" | "package", report: {state: "start" | "done", bytes?: number, cached?: boolean}) => void} Report */

/** @type {Promise<any> | null} */
let started = null;

/**
 * `gpt2_wgpu.worker`, Python's side of this worker; `pyodide` itself is its property.
 *
 * @param {Report} report @param {(reason: string) => void} onFatal told when Python has broken down
 *     and can run nothing any more
 * @returns {Promise<{pyodide: any, engine: any}>}
 */
export async function startPython(report, onFatal) {
  if (started) {
    const python = await started;
    for (const stage of /** @type {const} */ (["python", "package"])) {
      report(stage, { state: "done", bytes: 0, cached: true });
    }
    return python;
  }
  started = start(report, onFatal);
  try {
    return await started;
  } catch (error) {
    started = null; // a connection may come back
    const reason = /** @type {Error} */ (error).message ?? String(error);
    throw errorOf({
      name: "PythonStartError",
      message: `Python did not start: ${reason.trim().split("\n").pop()}; check the connection and load the page again`,
    });
  }
}

/** @param {Report} report @param {(reason: string) => void} onFatal */
async function start(report, onFatal) {
  report("python", { state: "start" });
  await import(GPU_SCRIPT.href); // without it Python's half would need eval
  const { loadPyodide } = await import(new URL("pyodide.mjs", PYODIDE).href);
  const pyodide = await loadPyodide({ indexURL: PYODIDE.href, lockFileURL: LOCK.href });
  pyodide._api.on_fatal = (/** @type {any} */ error) => onFatal(error?.message ?? String(error));
  report("python", { state: "done", ...fetched(/\/pyodide\//) });
  report("package", { state: "start" });
  /** @type {string[]} */
  const faults = [];
  await pyodide.loadPackage([PACKAGE], {
    messageCallback: () => {},
    errorCallback: (/** @type {string} */ line) => faults.push(line),
  });
  if (faults.length) throw new Error(faults.join("; "));
  const engine = pyodide.pyimport("gpt2_wgpu.worker");
  report("package", { state: "done", ...fetched(/\.whl$/) });
  return { pyodide, engine };
}

/** Bytes of what was fetched, and whether none of them came over a network. @param {RegExp} pattern */
function fetched(pattern) {
  const entries = /** @type {PerformanceResourceTiming[]} */ (performance.getEntriesByType("resource"));
  const ours = entries.filter(({ name }) => pattern.test(name));
  const bytes = ours.reduce((sum, entry) => sum + entry.encodedBodySize, 0);
  return { bytes, cached: bytes > 0 && ours.every((entry) => entry.transferSize === 0) };
}
