/**
 * Kernels that are compiled before Python asks for them: while its files and the model come, the GPU has nothing to do.
 * Which ones, first-kernels.bin says, which is made with the site (scripts/first_kernels.py). Python's backend (gpu.js)
 * takes over the device if it wants one like it, and what is compiled for it. What is not in the list, or fails here, it
 * asks for itself, and reports what fails then.
 */

const LIST = new URL("./first-kernels.bin", import.meta.url);
const PATIENCE_MS = 10_000; // for the list: Python's device waits for it
const FACTS = "machine-facts"; // what Python stored on earlier visits: gpt2_wgpu/models/remembered.py

/**
 * @typedef {[module: number, entries: GPUBindGroupLayoutEntry[], entryPoint: string, constants: Record<string, number>]} Listed
 * @typedef {Record<string, number[]>} ByFormat indices of pipelines, by weight format
 * @typedef {{seen: Record<string, any>, measure: ByFormat, test: ByFormat, text: ByFormat}} Kind of adapters
 * @typedef {{kernels: string, timedKernels: string, usual: string, rounded: string, minSpeedup: number}} HowToRead
 * @typedef {{device: {powerPreference: GPUPowerPreference, label: string, features: GPUFeatureName[], limits: string[]},
 *     facts: HowToRead, model: string, modules: number[][], paragraphs: string[], pipelines: Listed[], adapters: Kind[]}} List
 */

let begun = false;

/**
 * Begins to compile for a model that is loaded; does nothing the next time, as Python has a device then.
 *
 * @param {any} source @param {string} [dtype] as in `load`
 */
export function compileEarly(source, dtype) {
  if (begun) return;
  begun = true;
  Object.assign(globalThis, { gpt2WgpuEarly: begin(source, dtype).catch(() => null) });
}

/** @param {any} source @param {string} [dtype] */
async function begin(source, dtype) {
  const list = await readList();
  const { powerPreference, label, features, limits } = list.device;
  const adapter = await navigator.gpu.requestAdapter({ powerPreference });
  if (!adapter) return null;
  const wanted = await needed(list, adapter.info, source, dtype);
  const descriptor = {
    label,
    requiredFeatures: features.filter((name) => adapter.features.has(name)),
    requiredLimits: Object.fromEntries(limits.map((name) => [name, /** @type {any} */ (adapter.limits)[name]])),
  };
  const device = await adapter.requestDevice(descriptor);
  return new EarlyDevice(device, description(adapter, powerPreference, descriptor), list, wanted);
}

/** @returns {Promise<List>} */
async function readList() {
  const { ok, body } = await fetch(LIST, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!ok || !body) throw new Error("no list");
  return new Response(body.pipeThrough(new DecompressionStream("gzip"))).json();
}

/**
 * The pipelines that Python will ask for, in its order, without those of measurements and tests that it remembers.
 *
 * @param {List} list @param {any} info of the adapter @param {any} source @param {string} [dtype]
 */
async function needed({ facts, model, adapters }, info, source, dtype) {
  const kind = adapters.find(({ seen }) => Object.entries(seen).every(([key, value]) => info[key] === value));
  if (!kind) return [];
  const measure = kind.measure[""] ?? [];
  const speeds = measure.length ? await remembered("default_dtype.json", facts.timedKernels) : null;
  const isRounded = speeds ? speeds[facts.usual] >= facts.minSpeedup * speeds[facts.rounded] : measure.length > 0;
  const format = dtype ?? (isRounded ? facts.rounded : facts.usual);
  const tested = await remembered("self_test.json", facts.kernels, `| ${format} |`);
  return new Set([
    ...(dtype || speeds ? [] : measure),
    ...(tested ? [] : (kind.test[format] ?? [])),
    ...(source === model ? (kind.text[format] ?? []) : []),
  ]);
}

/** A fact of this browser whose key has these parts, or null. @param {string} file @param {string[]} parts */
async function remembered(file, ...parts) {
  try {
    if (!(await caches.has(FACTS))) return null;
    const cache = await caches.open(FACTS);
    for (const request of await cache.keys()) {
      const address = decodeURIComponent(request.url);
      const isIt = [`/${file}?`, navigator.userAgent, ...parts].every((part) => address.includes(part));
      if (isIt) return (await (await cache.match(request))?.json()) ?? null;
    }
  } catch {
    // no storage in this browser, or nothing legible: Python remembers nothing either
  }
  return null;
}

/** A device, and the pipelines that are compiled for it. */
class EarlyDevice {
  /** Labels of pipelines that were asked for and not begun. @type {string[]} */
  missing = [];
  /** @type {Map<string, Promise<GPUComputePipeline>>} */
  #pipelines = new Map();
  #gone = false;
  #description;

  /** @param {GPUDevice} device @param {string} description @param {List} list @param {Iterable<number>} wanted */
  constructor(device, description, list, wanted) {
    this.device = device;
    this.#description = description;
    device.lost.then(() => (this.#gone = true));
    device.pushErrorScope("validation"); // what is wrong in it, Python reports
    for (const index of wanted) this.#compile(list, list.pipelines[index]);
    device.popErrorScope().catch(() => {});
  }

  /** The pipelines that nothing has asked for. */
  get left() {
    return this.#pipelines.size;
  }

  /** @param {List} list @param {Listed} listed */
  #compile(list, [index, entries, entryPoint, constants]) {
    const { device } = this;
    const code = list.modules[index].map((part) => list.paragraphs[part]).join("\n\n");
    const layout = device.createPipelineLayout({ bindGroupLayouts: [device.createBindGroupLayout({ entries })] });
    const module = device.createShaderModule({ code });
    const compiling = device.createComputePipelineAsync({ layout, compute: { module, entryPoint, constants } });
    compiling.catch(() => {}); // reported to the one that asks for it
    this.#pipelines.set(JSON.stringify([code, [entries], entryPoint, constants]), compiling);
  }

  /**
   * This, once, for the first who wants such a device of such an adapter; else null.
   *
   * @param {GPUAdapter} adapter @param {string} powerPreference that it was asked for with
   * @param {GPUDeviceDescriptor} wanted
   */
  take(adapter, powerPreference, wanted) {
    if (this.#gone || description(adapter, powerPreference, wanted) !== this.#description) return null;
    this.#gone = true;
    return this;
  }

  /**
   * A pipeline that is being compiled, once; undefined if it is not.
   *
   * @param {string} identity JSON of code, layouts' entries, entry point and constants @param {string} label
   */
  pipeline(identity, label) {
    const found = this.#pipelines.get(identity);
    this.#pipelines.delete(identity);
    if (!found) this.missing.push(label);
    return found;
  }
}

/**
 * What distinguishes a device: its adapter as browsers describe it, and what was asked for.
 *
 * @param {GPUAdapter} adapter @param {string} powerPreference @param {GPUDeviceDescriptor} descriptor
 */
function description({ info, features, limits }, powerPreference, { requiredFeatures, requiredLimits }) {
  const { vendor, architecture, device, description, isFallbackAdapter } = info;
  const sizes = [];
  for (const name in limits) sizes.push(/** @type {any} */ (limits)[name]);
  const names = [...features].sort(); // each adapter has another order
  const offered = [vendor, architecture, device, description, isFallbackAdapter, ...names, ...sizes];
  return JSON.stringify([offered, powerPreference, requiredFeatures, requiredLimits]);
}
