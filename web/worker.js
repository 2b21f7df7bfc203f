/** The worker: answers the page's calls (rpc.js) by way of the downloads and of Python. */

import { check, noAdapter } from "./check.js";
import * as models from "./models.js";
import { startPython } from "./python.js";
import { aborted, errorOf, faultOf, serve } from "./rpc.js";

/**
 * @typedef {{signal: AbortSignal, emit: (event: any) => void}} Context
 * @typedef {{proxy: any, busy: string, stream: any}} Model
 */

const PROMPTLY = 100; // milliseconds between two reports of progress
const MEMORY_EVERY = 200; // milliseconds between two memory reports while generating

/** @type {Map<number, Model>} */
const loaded = new Map();
let next = 1;

const { tell, end } = serve({
  check,
  size: ({ signal }, source, options) => models.size(source, options, signal),
  offered: () => models.offered(),
  list: () => models.list(),
  remove: (_, id) => models.remove(id),
  load,
  stream,
  memory: (_, model) => plain(modelOf(model).proxy.memory()),
  python,
  dispose,
});

/** A Python dict as a plain object. @param {any} proxy */
function plain(proxy) {
  const value = proxy.toJs({ dict_converter: Object.fromEntries });
  proxy.destroy();
  return value;
}

/** @param {number} id */
function modelOf(id) {
  const model = loaded.get(id);
  if (model) return model;
  throw errorOf({ name: "DisposedTensorError", message: "this model was disposed: load it again" });
}

/**
 * One thing at a time with a model.
 *
 * @template T @param {number} id @param {string} what @param {(model: Model) => Promise<T>} work
 */
async function alone(id, what, work) {
  const model = modelOf(id);
  if (model.busy) {
    const message = `this model is ${model.busy} already: wait for its end, or stop it`;
    throw errorOf({ name: "BusyError", message });
  }
  model.busy = what;
  try {
    return await work(model);
  } finally {
    model.busy = "";
    if (loaded.has(id)) tell("memory", { model: id, ...plain(model.proxy.memory()) });
  }
}

/**
 * @param {Context} context @param {any} source
 * @param {{dtype?: string, update?: boolean, hub?: string}} options
 */
async function load({ signal, emit }, source, { dtype, ...options }) {
  const found = await check();
  if (!found.ok) throw noAdapter(found);
  const stages = new Stages(emit);
  const downloading = models.obtain(source, options, {
    signal,
    onProgress: (progress) => stages.report("weights", { state: "progress", ...progress }),
  });
  stages.report("weights", { state: "start" });
  const python = startPython((stage, report) => stages.report(stage, report), end).then(async (started) => {
    stages.report("adapter", { state: "start" });
    await started.engine.open_device();
    stages.report("adapter", { state: "done" });
    return started;
  });
  // Both end before an error is thrown: nothing goes on behind the page's back.
  const [files, engine] = await Promise.allSettled([downloading, python]);
  if (files.status === "rejected") throw files.reason;
  const obtained = files.value;
  let proxy;
  try {
    if (engine.status === "rejected") throw engine.reason;
    signal.throwIfAborted();
    proxy = await upload(obtained, engine.value.engine, dtype, stages, signal);
  } finally {
    obtained.release();
  }
  try {
    signal.throwIfAborted();
    stages.report("shaders", { state: "start" });
    await proxy.warm_up();
    stages.report("shaders", { state: "done" });
    signal.throwIfAborted();
  } catch (error) {
    proxy.dispose();
    proxy.destroy();
    throw error;
  }
  const id = next++;
  loaded.set(id, { proxy, busy: "", stream: null });
  proxy.watch(
    (/** @type {string} */ message) => tell("lost", { model: id, message }),
    () => tell("recovered", { model: id }),
  );
  const { cached, stored, warning } = obtained;
  const info = { ...plain(proxy.info()), adapter: found.adapter, stored };
  if (warning) info.warnings.push(warning);
  return { model: id, info, saved: stored && !cached };
}

/**
 * @param {models.Obtained} obtained @param {any} engine @param {string | undefined} dtype @param {Stages} stages
 * @param {AbortSignal} signal
 */
async function upload(obtained, engine, dtype, stages, signal) {
  const { name, files, cached } = obtained;
  try {
    const proxy = await engine.load(name, [...files], dtype, (/** @type {number} */ bytes, /** @type {number} */ total) => {
      signal.throwIfAborted();
      stages.report("weights", { state: "progress", phase: "upload", bytes, total, cached });
      stages.memory(() => plain(engine.memory()));
    });
    await keep(obtained);
    stages.report("weights", { state: "done", cached });
    return proxy;
  } catch (error) {
    if (signal.aborted) throw aborted();
    // What is no model must not be taken for a complete one next time.
    if (/^(Weights|Config|Tokenizer)Error$/.test(faultOf(error).name)) await obtained.discard();
    throw error;
  }
}

/** A model that is loaded is of use even if it cannot be stored. @param {models.Obtained} obtained */
async function keep(obtained) {
  try {
    await obtained.commit();
  } catch (error) {
    obtained.stored = false;
    obtained.warning = `the model could not be stored (${faultOf(error).message}): it is kept for this run only`;
  }
}

/** @param {Context} context @param {number} id @param {string} prompt @param {any} options */
function stream({ signal, emit }, id, prompt, options) {
  return alone(id, "generating", async (model) => {
    const text = model.proxy.stream.callKwargs(prompt, options);
    model.stream = text;
    const stop = () => text.close();
    signal.addEventListener("abort", stop);
    try {
      let told = -Infinity;
      for (;;) {
        const piece = await text.next();
        const stats = plain(text.stats());
        if (piece === undefined || signal.aborted) {
          emit({ text: "", stats });
          if (signal.aborted) throw aborted();
          return stats;
        }
        emit({ text: piece, stats });
        if (performance.now() - told > MEMORY_EVERY) {
          told = performance.now();
          tell("memory", { model: id, ...plain(model.proxy.memory()) });
        }
      }
    } finally {
      signal.removeEventListener("abort", stop);
      model.stream = null;
      text.close();
      text.destroy();
    }
  });
}

/** @param {Context} context @param {number} id @param {string} code */
function python({ signal }, id, code) {
  return alone(id, "running Python", async ({ proxy }) => {
    const stop = () => loaded.has(id) && proxy.stop_python();
    signal.addEventListener("abort", stop);
    try {
      const { error, ...done } = plain(await proxy.python(code));
      if (signal.aborted) throw aborted();
      modelOf(id); // disposed meanwhile?
      if (error) throw errorOf(error);
      return done;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  });
}

/** @param {Context} context @param {number} id */
function dispose(context, id) {
  const model = loaded.get(id);
  if (!model) return;
  loaded.delete(id);
  model.stream?.close();
  model.proxy.stop_python();
  model.proxy.dispose();
  model.proxy.destroy();
}

/** Progress of loading: what a stage took so far, and how fast its bytes come. */
class Stages {
  /** @type {Map<string, number>} */
  #begun = new Map();
  /** @type {{at: number, bytes: number}[]} */
  #recent = [];
  #phase = "";
  #looked = -Infinity;
  #told = -Infinity;

  /** @param {(event: any) => void} emit */
  constructor(emit) {
    this.emit = emit;
  }

  /** @param {string} stage @param {any} report */
  report(stage, report) {
    const now = performance.now();
    if (!this.#begun.has(stage)) this.#begun.set(stage, now);
    const goesOn = report.phase !== undefined && report.phase === this.#phase && report.bytes < report.total;
    if (goesOn && now - this.#told < PROMPTLY) return;
    this.#told = now;
    const seconds = (now - /** @type {number} */ (this.#begun.get(stage))) / 1000;
    const speed = report.state === "progress" ? this.#speed(report.phase, report.bytes, now) : undefined;
    this.emit({ stage, seconds, bytesPerSecond: speed, ...report });
  }

  /** What is live on the GPU, now and then while weights go up. @param {() => any} look */
  memory(look) {
    const now = performance.now();
    if (now - this.#looked < MEMORY_EVERY) return;
    this.#looked = now;
    this.emit({ memory: look() });
  }

  /** Bytes per second over the last three. @param {string} phase @param {number} bytes @param {number} at */
  #speed(phase, bytes, at) {
    if (phase !== this.#phase) this.#recent = [];
    this.#phase = phase;
    this.#recent.push({ at, bytes });
    while (this.#recent[0].at < at - 3000) this.#recent.shift();
    const [oldest] = this.#recent;
    return at > oldest.at ? ((bytes - oldest.bytes) * 1000) / (at - oldest.at) : undefined;
  }
}
