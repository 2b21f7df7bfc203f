/** The texts that the worker generates: streams, and several texts together. */

import { inPython, plain } from "./python.js";
import { aborted, errorOf } from "./rpc.js";
import { MEMORY_INTERVAL_MS, alone, report, stoppable } from "./worker-models.js";

/**
 * @typedef {import("./worker-models.js").Context} Context
 * @typedef {import("./worker-models.js").Model} Model
 */

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

/**
 * The end of `timeLimit`, which counts from now on, and a function for the options with what is then left of it.
 *
 * @param {any} options
 */
export function timed(options) {
  const { timeLimit } = options;
  const limited = typeof timeLimit === "number" && timeLimit > 0; // else none, or one that Python rejects
  const until = limited ? performance.now() + timeLimit * 1000 : Infinity;
  const left = () => {
    if (!limited) return options;
    return { ...options, timeLimit: Math.max((until - performance.now()) / 1000, 1e-6) };
  };
  return { until, left };
}

/** @param {Context} context @param {number} id @param {string | number[]} prompt @param {any} options */
export function stream(context, id, prompt, options) {
  return streamOf(context, id, options, (model, ...settings) => model.proxy.stream(inPython(prompt), ...settings));
}

/**
 * @param {Context} context @param {number} id @param {any} options
 * @param {(model: Model, settings: any, rules: any, ended: boolean) => any} begin `ended`: the call's time is up
 */
export function streamOf({ signal, emit }, id, { constraint, wait, ...options }, begin) {
  const { until, left } = timed(options);
  const write = async (/** @type {Model} */ model, ended = false) => {
    const rules = ended ? undefined : await rulesOf(constraint);
    signal.throwIfAborted();
    const text = begin(model, inPython(left()), rules, ended);
    if (!ended) model.stream = text;
    const stop = () => text.close();
    signal.addEventListener("abort", stop);
    try {
      let reported = -Infinity;
      for (;;) {
        const found = plain(await text.next());
        const tokens = options.tokens ? found : undefined;
        const [row, piece] = !tokens && Array.isArray(found) ? found : [undefined, found]; // of several texts, or one
        if (piece !== undefined) emit({ text: tokens ? "" : piece, tokens, row, stats: plain(text.stats(row ?? 0)) });
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
      if (!ended) model.stream = null;
      text.close();
      text.destroy();
    }
  };
  return alone(id, "generating", write, wait ? { signal, until, late: (model) => write(model, true) } : undefined);
}

/** Several texts, generated together. @param {Context} context @param {number} id @param {string[]} prompts @param {any} options */
export function generate({ signal }, id, prompts, { constraint, wait, ...options }) {
  const { until, left } = timed(options);
  const late = (/** @type {Model} */ { proxy }) => proxy.generate(inPython(prompts), inPython(left()), undefined, true).then(plain);
  return alone(id, "generating", async (model) => {
    const rules = await rulesOf(constraint);
    signal.throwIfAborted();
    const timer = setInterval(() => report(id, model), MEMORY_INTERVAL_MS);
    try {
      return await stoppable(id, signal, model.proxy.generate(inPython(prompts), inPython(left()), rules));
    } finally {
      clearInterval(timer);
    }
  }, wait ? { signal, until, late } : undefined);
}
