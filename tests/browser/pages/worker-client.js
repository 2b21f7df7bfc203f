// One long-lived worker with Pyodide; `ask(code, files)` runs Python there.

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let asked = 0;

worker.onmessage = ({ data: { id, value, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(value);
  else reject(new Error(error));
};
worker.onerror = (event) => {
  // Python itself has ended: no answer will come.
  for (const { reject } of waiting.values()) reject(new Error(`the worker ended: ${event.message}`));
  waiting.clear();
};

globalThis.ask = (code) =>
  new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, code });
  });
