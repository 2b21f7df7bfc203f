/** The loading of a model in the worker: download, Python's start, upload, and their progress. */

import { check, noAdapter } from "./check.js";
import { compileEarly, endEarly, undisturbed } from "./early-kernels.js";
import { onceFilesCame, plain, startPython } from "./python.js";
import { obtain } from "./remote-models.js";
import { aborted, end, faultOf, post, unlessAborted } from "./rpc.js";
import { MEMORY_INTERVAL_MS, addModel } from "./worker-models.js";

/** @typedef {import("./worker-models.js").Context} Context */

const PROGRESS_INTERVAL_MS = 100;

/** Cancelled loads that have not ended yet: they hold a download's lock, or GPU memory. @type {Set<Promise<any>>} */
const ending = new Set();

/**
 * @param {Context} context @param {any} source
 * @param {{dtype?: string, update?: boolean, hub?: string}} options
 */
export async function load(context, source, options) {
  await Promise.allSettled(ending);
  const { signal } = context;
  signal.throwIfAborted();
  const loading = obtainAndLoad(context, source, options);
  const cancelled = () => ending.add(loading);
  signal.addEventListener("abort", cancelled);
  try {
    return await loading;
  } finally {
    signal.removeEventListener("abort", cancelled);
    ending.delete(loading);
  }
}

/**
 * Loads a model; throws as soon as the download or Python's start fails. Python's start then continues
 * for the next load, while a download is stopped.
 *
 * @param {Context} context @param {any} source
 * @param {{dtype?: string, update?: boolean, hub?: string}} options
 */
async function obtainAndLoad({ signal, emit }, source, { dtype, ...options }) {
  const found = await check();
  if (!found.ok) throw noAdapter(found);
  compileEarly(source, dtype);
  const stages = new Stages(emit);
  const failed = new AbortController();
  stages.report("weights", { state: "start" });
  const python = startPython((stage, report) => stages.report(stage, report), end).then(async (started) => {
    stages.report("adapter", { state: "start" });
    await undisturbed();
    await started.engine.open_device(dtype);
    stages.report("adapter", { state: "done" });
    return started;
  });
  const downloading = obtain(source, options, {
    signal: AbortSignal.any([signal, failed.signal]),
    // From the same host, Python's files come first: both would share its connection, and while Python
    // starts and tests the GPU, which takes seconds, the download goes on.
    siteTurn: onceFilesCame,
    onProgress: (progress) => stages.report("weights", { state: "progress", ...progress }),
  });
  python.catch((error) => failed.abort(error));
  const obtained = await downloading.catch((error) => {
    throw failed.signal.aborted ? failed.signal.reason : error;
  });
  let engine, proxy;
  try {
    ({ engine } = await unlessAborted(python, signal));
    proxy = await upload(obtained, engine, dtype, stages, signal);
  } finally {
    obtained.release();
    if (engine && !proxy) emit({ memory: plain(engine.memory()) });
  }
  try {
    signal.throwIfAborted();
    stages.report("shaders", { state: "start" });
    await proxy.warm_up();
    await endEarly();
    stages.report("shaders", { state: "done" });
    signal.throwIfAborted();
  } catch (error) {
    proxy.dispose();
    proxy.destroy();
    emit({ memory: plain(engine.memory()) });
    throw error;
  }
  const id = addModel(proxy);
  proxy.watch(
    (/** @type {string} */ message) => post("lost", { model: id, message }),
    () => post("recovered", { model: id }),
  );
  const { cached, stored, warning } = obtained;
  const info = { ...plain(proxy.info()), adapter: found.adapter, stored };
  if (warning) info.warnings.push(warning);
  return { model: id, info, saved: stored && !cached };
}

/**
 * @param {import("./models.js").Obtained} obtained @param {any} engine @param {string | undefined} dtype @param {Stages} stages
 * @param {AbortSignal} signal
 */
async function upload(obtained, engine, dtype, stages, signal) {
  const { name, files, cached, id = name } = obtained; // a folder of this device has no id
  try {
    const proxy = await engine.load(name, [...files], dtype, (/** @type {number} */ bytes, /** @type {number} */ total) => {
      signal.throwIfAborted();
      stages.report("weights", { state: "progress", phase: "upload", bytes, total, cached });
      stages.memory(() => plain(engine.memory()));
    }, id);
    await keep(obtained);
    stages.report("weights", { state: "done", cached });
    return proxy;
  } catch (error) {
    if (signal.aborted) throw aborted();
    // Files that do not load must not count as a complete model next time.
    if (/^(Weights|Config|Tokenizer)Error$/.test(faultOf(error).name)) await obtained.discard();
    throw error;
  }
}

/** Stores a loaded model; a failure is a warning, since the model works without. @param {import("./models.js").Obtained} obtained */
async function keep(obtained) {
  try {
    await obtained.commit();
  } catch (error) {
    obtained.stored = false;
    obtained.warning = `Not saved: ${faultOf(error).message}. The model works until this page is closed.`;
  }
}

/** Progress of loading: seconds per stage and bytes per second. */
class Stages {
  /** @type {Map<string, number>} */
  #begun = new Map();
  /** @type {{at: number, bytes: number}[]} */
  #recent = [];
  #phase = "";
  #looked = -Infinity;
  #reported = -Infinity;

  /** @param {(event: any) => void} emit */
  constructor(emit) {
    this.emit = emit;
  }

  /** @param {string} stage @param {any} report */
  report(stage, report) {
    const now = performance.now();
    if (!this.#begun.has(stage)) this.#begun.set(stage, now);
    const goesOn = report.phase !== undefined && report.phase === this.#phase && report.bytes < report.total;
    if (goesOn && now - this.#reported < PROGRESS_INTERVAL_MS) return;
    this.#reported = now;
    const seconds = (now - /** @type {number} */ (this.#begun.get(stage))) / 1000;
    const speed = report.state === "progress" ? this.#speed(report.phase, report.bytes, now) : undefined;
    this.emit({ stage, seconds, bytesPerSecond: speed, ...report });
  }

  /** Reports the GPU memory in use, at intervals while weights are uploaded. @param {() => any} look */
  memory(look) {
    const now = performance.now();
    if (now - this.#looked < MEMORY_INTERVAL_MS) return;
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
