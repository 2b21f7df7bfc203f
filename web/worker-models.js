/** The loaded models of the worker: one call of each at a time, and their end. */

import { plain, startPython } from "./python.js";
import { aborted, end, errorOf, post } from "./rpc.js";

/**
 * @typedef {{signal: AbortSignal, emit: (event: any) => void}} Context
 * @typedef {{proxy: any, busy: string, stream: any, work: Promise<any>, sessions: Map<number, any>}} Model
 *     `work`: what is busy
 * @typedef {{signal: AbortSignal, until: number, late: (model: Model) => Promise<any>}} Turn
 *     a call that waits: until an abort, or until a time of `performance.now()`, when its result is `late`'s
 */

export const MEMORY_INTERVAL_MS = 200; // between reports while generating
const LONGEST_TIMER_MS = 2 ** 31 - 1; // a longer one is over at once

/** @type {Map<number, Model>} */
const loaded = new Map();
let next = 1;

/** A number that no other model or session has. */
export const newId = () => next++;

/** Keeps a model until `dispose`; returns its number. @param {any} proxy */
export function addModel(proxy) {
  const id = newId();
  loaded.set(id, { proxy, busy: "", stream: null, work: Promise.resolve(), sessions: new Map() });
  return id;
}

/** @param {number} id */
export const modelIfLoaded = (id) => loaded.get(id);

/** @param {number} id */
export function modelOf(id) {
  const model = loaded.get(id);
  if (model) return model;
  throw errorOf({ name: "DisposedTensorError", message: "this model was disposed. Load it again" });
}

/**
 * Runs one call of a model at a time; a second one throws BusyError, or with `turn` waits.
 *
 * @template T @param {number} id @param {string} what @param {(model: Model) => Promise<T>} work
 * @param {Turn} [turn]
 */
export async function alone(id, what, work, turn) {
  let model = modelOf(id);
  while (turn && model.busy) {
    await endOf(model.work, turn);
    turn.signal.throwIfAborted();
    model = modelOf(id);
    if (model.busy && performance.now() >= turn.until) return lateResult(model, turn);
  }
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

/** Waits for work, or for the end of a turn that waits for it. @param {Promise<any>} work @param {Turn} turn */
async function endOf(work, { signal, until }) {
  let stop = () => {};
  const stopped = new Promise((resolve) => (stop = () => resolve(undefined)));
  signal.addEventListener("abort", stop);
  const left = Math.min(until - performance.now(), LONGEST_TIMER_MS);
  const timer = until < Infinity ? setTimeout(stop, left) : undefined;
  await Promise.race([work, stopped]);
  clearTimeout(timer);
  signal.removeEventListener("abort", stop);
}

/** The result of a call whose time was up while it waited; a model is not disposed of before. @param {Model} model @param {Turn} turn */
function lateResult(model, { late }) {
  const working = late(model);
  model.work = Promise.all([model.work, working.catch(() => {})]);
  return working;
}

/** Reports the GPU memory in use. @param {number} id @param {Model} model */
export function report(id, model) {
  if (loaded.has(id)) post("memory", { model: id, ...plain(model.proxy.memory()) });
}

/**
 * The result of Python's work, which a signal cancels where it awaits.
 *
 * @param {number} id @param {AbortSignal} signal @param {Promise<any>} work
 */
export async function stoppable(id, signal, work) {
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
export async function dispose(context, id) {
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
