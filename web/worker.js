/** The worker: serves the page's calls (rpc.js) with downloads and Python. */

import { check, noAdapter } from "./check.js";
import * as models from "./models.js";
import { startPython } from "./python.js";
import { aborted, errorOf, faultOf, serve } from "./rpc.js";

/**
 * @typedef {{signal: AbortSignal, emit: (event: any) => void}} Context
 * @typedef {{proxy: any, busy: string, stream: any, work: Promise<any>, sessions: Map<number, any>}} Model
 *     `work`: what is busy
 */

const PROGRESS_INTERVAL_MS = 100;
const MEMORY_INTERVAL_MS = 200; // while generating

/** @type {Map<number, Model>} */
const loaded = new Map();
let next = 1;
/** Python, once it has started. @type {any} */
let pyodide = null;

const { post, end } = serve({
  check,
  size: ({ signal }, source, options) => models.size(source, options, signal),
  offered: () => models.offered(),
  list: () => models.list(),
  remove: (_, id) => models.remove(id),
  load,
  stream,
  generate,
  encode: (_, id, text, { allowedSpecial = [] }) => plain(modelOf(id).proxy.encode(text, inPython(allowedSpecial))),
  decode: (_, id, tokenIds) => modelOf(id).proxy.decode(inPython(tokenIds)),
  pieces: (_, id, text, { allowedSpecial = [] }) =>
    plain(modelOf(id).proxy.pieces(inPython(text), inPython(allowedSpecial))),
  logprobs: (context, id, texts, { stride }) =>
    evaluate(context, id, (proxy) => proxy.logprobs(inPython(texts), stride)),
  perplexity: (context, id, texts, { stride }) =>
    evaluate(context, id, (proxy) => proxy.perplexity(inPython(texts), stride)),
  score: (context, id, tokenIds, { targetIds }) =>
    evaluate(context, id, (proxy) => proxy.score(inPython(tokenIds), inPython(targetIds))),
  session: (_, id, prompt, options) => added(id, modelOf(id).proxy.session(inPython(prompt), inPython(options))),
  fork: (_, id, session) => added(id, sessionOf(id, session).fork()),
  append: (_, id, session, tokens, { allowedSpecial }) =>
    sessionOf(id, session).append(inPython(tokens), inPython(allowedSpecial)),
  rewind: (_, id, session, tokens) => sessionOf(id, session).rewind(tokens),
  edit: (_, id, session, tokens, { allowedSpecial }) =>
    sessionOf(id, session).edit(inPython(tokens), inPython(allowedSpecial)),
  tokenIds: (_, id, session) => plain(sessionOf(id, session).tokens()),
  text: (_, id, session) => sessionOf(id, session).text(),
  continue: (context, id, session, options) =>
    streamOf(context, id, options, (_, ...settings) => sessionOf(id, session).stream(...settings)),
  toBytes: (_, id, session) =>
    alone(id, "saving a session", async () => plain(await sessionOf(id, session).to_bytes())),
  loadSession: (_, id, bytes) =>
    alone(id, "loading a session", async ({ proxy }) => added(id, await proxy.load_session(inPython(bytes)))),
  closeSession,
  memory: (_, model) => plain(modelOf(model).proxy.memory()),
  python,
  dispose,
});

/** A plain value as Python's: dict, list, str, number. @param {any} value */
const inPython = (value) => pyodide.toPy(value);

/** What Python returned, dicts as plain objects, in which None is null. @param {any} proxy */
function plain(proxy) {
  if (!proxy?.toJs) return proxy; // a number or a string
  const objectOf = (/** @type {Iterable<[string, any]>} */ entries) =>
    Object.fromEntries(Array.from(entries, ([key, value]) => [key, value ?? null]));
  const value = proxy.toJs({ dict_converter: objectOf });
  proxy.destroy();
  return value;
}

/** @param {number} id */
function modelOf(id) {
  const model = loaded.get(id);
  if (model) return model;
  throw errorOf({ name: "DisposedTensorError", message: "this model was disposed. Load it again" });
}

/**
 * Runs one call of a model at a time; a second one throws BusyError.
 *
 * @template T @param {number} id @param {string} what @param {(model: Model) => Promise<T>} work
 */
async function alone(id, what, work) {
  const model = modelOf(id);
  if (model.busy) {
    const message = `this model is ${model.busy} already. Wait for its end, or stop it`;
    throw errorOf({ name: "BusyError", message });
  }
  model.busy = what;
  try {
    const working = work(model);
    model.work = working.catch(() => {});
    return await working;
  } finally {
    model.busy = "";
    report(id, model);
  }
}

/** Reports the GPU memory in use. @param {number} id @param {Model} model */
function report(id, model) {
  if (loaded.has(id)) post("memory", { model: id, ...plain(model.proxy.memory()) });
}

/** Cancelled loads that have not ended yet: they hold a download's lock, or GPU memory. @type {Set<Promise<any>>} */
const ending = new Set();

/**
 * @param {Context} context @param {any} source
 * @param {{dtype?: string, update?: boolean, hub?: string}} options
 */
async function load(context, source, options) {
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
  const stages = new Stages(emit);
  const failed = new AbortController();
  const downloading = models.obtain(source, options, {
    signal: AbortSignal.any([signal, failed.signal]),
    onProgress: (progress) => stages.report("weights", { state: "progress", ...progress }),
  });
  stages.report("weights", { state: "start" });
  const python = startPython((stage, report) => stages.report(stage, report), end).then(async (started) => {
    stages.report("adapter", { state: "start" });
    await started.engine.open_device();
    stages.report("adapter", { state: "done" });
    return started;
  });
  python.catch((error) => failed.abort(error));
  const obtained = await downloading.catch((error) => {
    throw failed.signal.aborted ? failed.signal.reason : error;
  });
  let engine, proxy;
  try {
    ({ engine, pyodide } = await unlessAborted(python, signal));
    proxy = await upload(obtained, engine, dtype, stages, signal);
  } finally {
    obtained.release();
    if (engine && !proxy) emit({ memory: plain(engine.memory()) });
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
    emit({ memory: plain(engine.memory()) });
    throw error;
  }
  const id = next++;
  loaded.set(id, { proxy, busy: "", stream: null, work: Promise.resolve(), sessions: new Map() });
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
 * The result of `promise`, or an AbortError as soon as `signal` aborts.
 *
 * @template T @param {Promise<T>} promise @param {AbortSignal} signal @returns {Promise<T>}
 */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(aborted());
    signal.addEventListener("abort", () => reject(aborted()));
    promise.then(resolve, reject);
  });
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
    // Files that do not load must not count as a complete model next time.
    if (/^(Weights|Config|Tokenizer)Error$/.test(faultOf(error).name)) await obtained.discard();
    throw error;
  }
}

/** Stores a loaded model; a failure is a warning, since the model works without. @param {models.Obtained} obtained */
async function keep(obtained) {
  try {
    await obtained.commit();
  } catch (error) {
    obtained.stored = false;
    obtained.warning = `Not saved: ${faultOf(error).message}. The model works until this page is closed.`;
  }
}

/**
 * The rules of a constraint: a module's `allows` and `finished`.
 *
 * @param {string | undefined} address
 */
async function rulesOf(address) {
  if (address === undefined) return undefined;
  try {
    return await import(address);
  } catch (error) {
    const reason = /** @type {Error} */ (error).message;
    throw errorOf({ name: "InvalidArgumentError", message: `constraint ${address} is not a module that loads: ${reason}` });
  }
}

/** @param {Context} context @param {number} id @param {string | number[]} prompt @param {any} options */
function stream(context, id, prompt, options) {
  return streamOf(context, id, options, (model, ...settings) => model.proxy.stream(inPython(prompt), ...settings));
}

/**
 * @param {Context} context @param {number} id @param {any} options
 * @param {(model: Model, settings: any, rules: any) => any} begin
 */
function streamOf({ signal, emit }, id, { constraint, ...options }, begin) {
  return alone(id, "generating", async (model) => {
    const rules = await rulesOf(constraint);
    signal.throwIfAborted();
    const text = begin(model, inPython(options), rules);
    model.stream = text;
    const stop = () => text.close();
    signal.addEventListener("abort", stop);
    try {
      let reported = -Infinity;
      for (;;) {
        const found = plain(await text.next());
        const [row, piece] = Array.isArray(found) ? found : [undefined, found]; // of several texts, or one
        if (piece !== undefined) emit({ text: piece, row, stats: plain(text.stats(row ?? 0)) });
        if (piece === undefined || signal.aborted) {
          const stats = plain(text.final_stats());
          emit({ stats });
          const details = signal.aborted ? null : plain(await text.details());
          if (signal.aborted) throw aborted();
          return { stats, details: details ?? null };
        }
        if (performance.now() - reported > MEMORY_INTERVAL_MS) {
          reported = performance.now();
          report(id, model);
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

/** Several texts, generated together. @param {Context} context @param {number} id @param {string[]} prompts @param {any} options */
function generate({ signal }, id, prompts, { constraint, ...options }) {
  return alone(id, "generating", async (model) => {
    const rules = await rulesOf(constraint);
    const timer = setInterval(() => report(id, model), MEMORY_INTERVAL_MS);
    try {
      return await stoppable(id, signal, model.proxy.generate(inPython(prompts), inPython(options), rules));
    } finally {
      clearInterval(timer);
    }
  });
}

/** Keeps a new session until it is closed. @param {number} id @param {any} proxy */
function added(id, proxy) {
  modelOf(id).sessions.set(next, proxy);
  return next++;
}

/** @param {number} id @param {number} session */
function sessionOf(id, session) {
  const found = modelOf(id).sessions.get(session);
  if (found) return found;
  throw errorOf({ name: "DisposedTensorError", message: "this session is closed. Begin another one" });
}

/** @param {Context} context @param {number} id @param {number} session */
function closeSession(context, id, session) {
  const model = loaded.get(id);
  const proxy = model?.sessions.get(session);
  if (!model || !proxy) return;
  model.sessions.delete(session);
  proxy.close();
  proxy.destroy();
  report(id, model);
}

/** @param {Context} context @param {number} id @param {(proxy: any) => Promise<any>} work */
function evaluate({ signal }, id, work) {
  return alone(id, "evaluating", ({ proxy }) => stoppable(id, signal, work(proxy)));
}

/** @param {Context} context @param {number} id @param {string} code */
function python({ signal }, id, code) {
  return alone(id, "running Python", async ({ proxy }) => {
    const { error, ...done } = await stoppable(id, signal, proxy.python(code));
    if (error) throw errorOf(error);
    return done;
  });
}

/**
 * The result of Python's work, which a signal cancels where it awaits.
 *
 * @param {number} id @param {AbortSignal} signal @param {Promise<any>} work
 */
async function stoppable(id, signal, work) {
  const stop = () => loaded.get(id)?.proxy.stop();
  signal.addEventListener("abort", stop);
  try {
    if (signal.aborted) stop();
    const result = plain(await work);
    if (!signal.aborted && loaded.has(id)) return result;
  } catch (error) {
    if (!signal.aborted && loaded.has(id)) throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
  if (signal.aborted) throw aborted();
  modelOf(id); // it was disposed meanwhile
}

/** What is held on the GPU afterwards; null if it was disposed before. @param {Context} context @param {number} id */
async function dispose(context, id) {
  const model = loaded.get(id);
  if (!model) return null;
  loaded.delete(id);
  model.stream?.close();
  model.proxy.stop();
  await model.work;
  for (const session of model.sessions.values()) {
    session.close();
    session.destroy();
  }
  model.proxy.dispose();
  model.proxy.destroy();
  const { engine } = await startPython(() => {}, end); // it has started
  return plain(engine.memory());
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
