// Pyodide with the site's wheels; runs the Python it is sent, and sends back what that returns.

import "../web/gpu.js";
import { loadPyodide } from "../pyodide/pyodide.mjs";

const here = new URL("../pyodide/", import.meta.url).href;

async function boot() {
  const pyodide = await loadPyodide({
    indexURL: here,
    lockFileURL: new URL("pyodide-lock.json", here).href,
  });
  await pyodide.loadPackage(["gpt2-wgpu"], { messageCallback() {} });
  return pyodide;
}

const ready = boot();

addEventListener("unhandledrejection", ({ reason }) => {
  setTimeout(() => {
    throw reason; // as an error, which the page sees
  });
});

onmessage = async ({ data: { id, code } }) => {
  try {
    const pyodide = await ready;
    const value = await pyodide.runPythonAsync(code);
    postMessage({ id, value: value?.toJs ? value.toJs({ dict_converter: Object.fromEntries }) : value });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
