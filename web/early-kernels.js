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
 * @typedef {{seen: Record<string, any>, cache: string, measure: ByFormat, test: ByFormat, text: ByFormat}} Kind of adapters
 * @typedef {{version: string, kernels: string, timedKernels: string, usual: string, rounded: string, minSpeedup: number}} HowToRead
 * @typedef {{device: {powerPreference: GPUPowerPreference, label: string, features: GPUFeatureName[], limits: string[]},
 *     facts: HowToRead, model: string, modules: number[][], paragraphs: string[], pipelines: Listed[], adapters: Kind[]}} List
 */

let begun = false;

/**
 * Begins to compile for a model that is loaded: once, as Python then has a device.
 *
 * @param {any} source @param {string} [dtype] as in `load`
 */
export function compileEarly(source, dtype) {
  if (begun) return;
  begun = true;
  Object.assign(globalThis, { gpt2WgpuEarly: begin(source, dtype).catch(() => null) });
}

/** Waits until nothing is compiled early beside a measurement of the weight formats, if there will be one. */
export async function undisturbed() {
  await (await /** @type {any} */ (globalThis).gpt2WgpuEarly)?.compiled;
}

/** Forgets kernels that were compiled early and that the first text did not take: they hold memory. */
export async function endEarly() {
  (await /** @type {any} */ (globalThis).gpt2WgpuEarly)?.drop();
}

/** @param {any} source @param {string} [dtype] */
async function begin(source, dtype) {
  const list = await readList();
  const { powerPreference, label, features, limits } = list.device;
  const adapter = await navigator.gpu.requestAdapter({ powerPreference });
  if (!adapter) return null;
  const wanted = await likely(list, adapter.info, source, dtype);
  const descriptor = {
    label,
    requiredFeatures: features.filter((name) => adapter.features.has(name)),
    requiredLimits: Object.fromEntries(limits.map((name) => [name, /** @type {any} */ (adapter.limits)[name]])),
  };
  const device = await adapter.requestDevice(descriptor);
  const early = new EarlyDevice(device, description(adapter, powerPreference, descriptor));
  try {
    early.compile(list, [...wanted.measure, ...wanted.rest], wanted.measure.length > 0);
  } catch (error) {
    early.drop();
    throw error;
  }
  return early;
}

/** @returns {Promise<List>} */
async function readList() {
  const { ok, body } = await fetch(LIST, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!ok || !body) throw new Error("no list");
  return new Response(body.pipeThrough(new DecompressionStream("gzip"))).json();
}

/**
 * The pipelines that Python is likely to ask for, in its order, without those of measurements and tests that it remembers.
 *
 * @param {List} list @param {any} info of the adapter @param {any} source @param {string} [dtype]
 */
async function likely({ facts, model, adapters }, info, source, dtype) {
  const kind = adapters.find(({ seen }) => Object.entries(seen).every(([key, value]) => info[key] === value));
  if (!kind) return { measure: [], rest: [] };
  const measure = kind.measure[""] ?? [];
  const speeds = measure.length ? await remembered("default_dtype.json", facts.timedKernels) : null;
  const isRounded = speeds ? speeds[facts.usual] >= facts.minSpeedup * speeds[facts.rounded] : measure.length > 0;
  const format = dtype ?? (isRounded ? facts.rounded : facts.usual);
  const tested = await remembered("self_test.json", `| ${facts.version} | ${facts.kernels} |`, `| ${format} | ${kind.cache} |`);
  const test = tested ? [] : (kind.test[format] ?? []);
  const text = source === model ? (kind.text[format] ?? []) : [];
  return { measure: dtype || speeds ? [] : measure, rest: [...test, ...text] };
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
  /** For tests: labels of pipelines that were asked for and not begun. @type {string[]} */
  missing = [];
  /** For tests: the number of those that were begun and not asked for. */
  left = 0;
  /** @type {Map<string, Promise<GPUComputePipeline>>} */
  #pipelines = new Map();
  /** All are compiled, if a measurement follows. @type {Promise<unknown> | undefined} */
  compiled;
  #available = true; // neither taken nor lost
  #description;

  /** @param {GPUDevice} device @param {string} description */
  constructor(device, description) {
    this.device = device;
    this.#description = description;
    device.lost.then(() => (this.#available = false));
  }

  /** @param {List} list @param {number[]} wanted indices of pipelines @param {boolean} measured whether a measurement follows */
  compile(list, wanted, measured) {
    this.device.pushErrorScope("validation"); // what is wrong in it, Python reports
    for (const index of new Set(wanted)) this.#compile(list, list.pipelines[index]);
    this.device.popErrorScope().catch(() => {});
    if (measured) this.compiled = Promise.allSettled(this.#pipelines.values());
  }

  /** Frees the pipelines that nothing has asked for, and the device, unless it is taken. */
  drop() {
    this.#pipelines.clear();
    if (this.#available) this.device.destroy();
    this.#available = false;
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
    this.left += 1;
  }

  /**
   * This, once, for the first who wants such a device of such an adapter; else null, and it is dropped.
   *
   * @param {GPUAdapter} adapter @param {string} powerPreference that it was asked for with
   * @param {GPUDeviceDescriptor} wanted
   */
  take(adapter, powerPreference, wanted) {
    if (!this.#available) return null;
    if (description(adapter, powerPreference, wanted) === this.#description) {
      this.#available = false;
      return this;
    }
    this.drop();
    return null;
  }

  /**
   * A pipeline that is being compiled, once; undefined if it is not.
   *
   * @param {string} identity JSON of code, layouts' entries, entry point and constants @param {string} label
   */
  pipeline(identity, label) {
    const found = this.#pipelines.get(identity);
    this.#pipelines.delete(identity);
    if (found) this.left -= 1;
    else this.missing.push(label);
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
