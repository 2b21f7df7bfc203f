// Runs in a worker, as the page's Python does: starts Python with the package, and sends its memory
// to where this came from (snapshot.py). web/python.js starts from that.

/** @param {string} path @param {any} body */
const send = (path, body) => fetch(path, { method: "POST", body });

try {
  await import("./web/gpu.js");
  const { loadPyodide } = await import("./pyodide/pyodide.mjs");
  const here = new URL("pyodide/", location.href).href;
  const lockFileURL = `${here}pyodide-lock.json`;
  const pyodide = await loadPyodide({ indexURL: here, lockFileURL, _makeSnapshot: true });
  const faults = [];
  const errorCallback = (line) => faults.push(line);
  await pyodide.loadPackage(["gpt2-wgpu"], { messageCallback() {}, errorCallback });
  if (faults.length) throw new Error(faults.join("; "));
  pyodide.runPython("import gc, random, gpt2_wgpu.integrations.web_worker; gc.collect(); None");
  // Files are not part of the memory: a start from it loads the packages again.
  for (const name of Object.keys(pyodide.loadedPackages)) delete pyodide.loadedPackages[name];
  await send("snapshot", pyodide.makeMemorySnapshot());
} catch (error) {
  await send("failure", String(error));
}
