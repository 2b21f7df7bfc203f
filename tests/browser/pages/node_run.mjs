// The built site's Python in Node, on Dawn: no browser, no worker, and no stack switching.
//
//     node node_run.mjs SITE MODULES CODE    # prints what CODE, a Python text, gives back
//
// SITE is the folder that `make site` makes; MODULES one where `webgpu` is installed.

import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [site, modules, code] = process.argv.splice(2); // what stays there, Python would take
const load = (path) => import(pathToFileURL(path).href);
const find = createRequire(join(resolve(modules), "package.json"));

const { create, globals } = await load(find.resolve("webgpu"));
Object.assign(globalThis, globals);

await load(join(resolve(site), "web/gpu.js"));
const { loadPyodide } = await load(join(resolve(site), "pyodide/pyodide.mjs"));
const indexURL = join(resolve(site), "pyodide/");
const pyodide = await loadPyodide({ indexURL, lockFileURL: join(indexURL, "pyodide-lock.json") });
await pyodide.loadPackage(["gpt2-wgpu"], { messageCallback() {} });
// Not before: Pyodide takes what has a navigator for a browser.
Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) } });
pyodide.FS.mkdirTree("/models");
pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: join(resolve(site), "models") }, "/models");
console.log(await pyodide.runPythonAsync(code));
process.exit(0); // Dawn's threads would keep Node alive
