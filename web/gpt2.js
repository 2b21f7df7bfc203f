/**
 * GPT-2 in the browser, for people who don't write Python. Types and documentation: gpt2.d.ts.
 *
 *     const lm = await GPT2.load("fairytales");
 *     for await (const text of lm.stream("Once upon a time")) console.log(text);
 *
 * Everything heavy happens in one worker, made at the first call and shared from then on.
 */

import { Caller, aborted, errorOf } from "./rpc.js";

export { offline } from "./offline.js";

/** What a worker that has ended holds. @type {import("./gpt2.js").Memory} */
const NOTHING_HELD = {
  numTensors: 0,
  numBuffers: 0,
  numBytes: 0,
  numBytesInGpu: 0,
  numBytesAllocatedInGpu: 0,
  peakBytes: 0,
  numScopes: 0,
  byKind: { weights: 0, parameters: 0, cache: 0, workspace: 0, staging: 0 },
};
const PATIENCE = 5000; // milliseconds that a worker may take to dispose of a model

/** @type {Caller | null} */
let shared = null;
/** @type {Map<number, GPT2>} */
const loaded = new Map();

function caller() {
  if (shared) return shared;
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  const made = new Caller(worker);
  made.onTopic = (topic, { model, ...event }) => loaded.get(model)?.[DELIVER](topic, event);
  made.onDeath = ({ message }) => {
    worker.terminate();
    shared = null; // the next call starts a new one
    const ended = [...loaded.values()];
    loaded.clear();
    for (const lm of ended) lm[END](message);
  };
  shared = made;
  return made;
}

let asked = false;

/** Asks, once, that the browser does not clear away what is stored; workers cannot ask. */
function keepStorage() {
  if (asked) return;
  asked = true;
  navigator.storage.persist?.().catch(() => {});
}

/** What a source means to the worker: an array of files, a whole address. @param {any} source */
function portable(source) {
  if (typeof FileList !== "undefined" && source instanceof FileList) return [...source];
  return isRelative(source) ? new URL(source, globalThis.document?.baseURI ?? location.href).href : source;
}

/** Whether this is a path, and cannot be a repository's name (as in Python). @param {any} source */
const isRelative = (source) =>
  typeof source === "string" && !source.includes("://") && /^\.{0,2}\/|\/$|^[^@]*\/[^@]*\//.test(source);

export const check = () => caller().call("check", []);

export const models = {
  /** @param {any} source @param {any} [options] */
  size: (source, { signal, ...options } = {}) =>
    caller().call("size", [portable(source), options], { signal }),
  offered: () => caller().call("offered", []),
  list: () => caller().call("list", []),
  /** @param {string} id */
  remove: (id) => caller().call("remove", [id]),
};

const KEY = Symbol("only load() makes one");
const DELIVER = Symbol("an event from the worker");
const END = Symbol("the worker has ended");

export class GPT2 extends EventTarget {
  #model;
  #caller;
  #disposed = false;
  /** @type {any} */
  info;
  /** @type {((memory: any) => void) | null} */
  onmemory = null;
  /** @type {((event: any) => void) | null} */
  onlost = null;
  /** @type {((event: any) => void) | null} */
  onrecovered = null;
  /** @type {((event: any) => void) | null} */
  onended = null;

  /** @param {symbol} key @param {Caller} made @param {number} model @param {any} info */
  constructor(key, made, model, info) {
    super();
    if (key !== KEY) throw new TypeError("a model is made by `await GPT2.load(source)`");
    this.#caller = made;
    this.#model = model;
    this.info = info;
    loaded.set(model, this);
  }

  /** @param {any} source @param {any} [options] */
  static async load(source, { onProgress, onMemory, signal, ...options } = {}) {
    const made = caller();
    const { model, info, saved } = await made.call("load", [portable(source), options], {
      signal,
      onEvent: ({ memory, ...progress }) => {
        if (memory) onMemory?.(memory);
        else if (!signal?.aborted) onProgress?.(progress);
      },
      onLate: ({ model }) => void made.call("dispose", [model]).catch(() => {}),
    });
    if (saved) keepStorage();
    return new GPT2(KEY, made, model, info);
  }

  /** @param {string} prompt @param {any} [options] */
  stream(prompt, { signal, ...options } = {}) {
    return new TextStream((onEvent, own) => {
      const signals = signal ? [signal, own] : [own];
      return this.#call("stream", [prompt, options], { onEvent, signal: AbortSignal.any(signals) });
    });
  }

  /** @param {string} prompt @param {any} [options] */
  async generate(prompt, options = {}) {
    let whole = "";
    for await (const text of this.stream(prompt, options)) whole += text;
    return whole;
  }

  memory() {
    return this.#call("memory", []);
  }

  /** @param {string} code @param {{signal?: AbortSignal}} [options] */
  python(code, { signal } = {}) {
    return this.#call("python", [code], { signal });
  }

  async dispose() {
    if (this.#disposed) return;
    if (!this.#caller.dead) {
      loaded.delete(this.#model);
      const late = setTimeout(() => this.#giveUp(), PATIENCE);
      const held = await this.#call("dispose", [])
        .catch((error) => {
          if (!this.#caller.dead) throw error; // what the worker held has gone with it
        })
        .finally(() => clearTimeout(late));
      if (held) this[DELIVER]("memory", held);
    }
    this.#disposed = true;
  }

  /** Ends a worker that Python keeps from answering: code that never waits stops in no other way. */
  #giveUp() {
    const message = `Python did not answer within ${PATIENCE / 1000} seconds`;
    this.#caller.end(message);
    this[END](`the worker was ended: ${message}`);
  }

  /** The worker has ended, and what it held is freed. @param {string} message */
  [END](message) {
    this[DELIVER]("memory", NOTHING_HELD);
    this[DELIVER]("ended", { message });
  }

  /** @param {string} method @param {any[]} args @param {any} [options] */
  async #call(method, args, options) {
    if (this.#disposed) {
      const message = "this model was disposed: load it again";
      throw errorOf({ name: "DisposedTensorError", message });
    }
    return this.#caller.call(method, [this.#model, ...args], options);
  }

  /** @param {string} topic "memory", "lost", "recovered" or "ended" @param {any} detail */
  [DELIVER](topic, detail) {
    if (topic === "memory") this.onmemory?.(detail);
    if (topic === "lost") this.onlost?.(detail);
    if (topic === "recovered") this.onrecovered?.(detail);
    if (topic === "ended") this.onended?.(detail);
    this.dispatchEvent(new CustomEvent(topic, { detail }));
  }
}

/** Pieces of text as they are computed; generating begins when the first is asked for. */
class TextStream {
  /** @type {string[]} */
  #pieces = [];
  /** Resolves when there is something new to look at. @type {PromiseWithResolvers<void> | null} */
  #news = null;
  /** @type {Promise<void> | null} */
  #run = null;
  /** @type {any} */
  #error = null;
  #ended = false;
  #controller = new AbortController();
  #begin;
  /** @type {any} */
  stats = null;

  /** @param {(onEvent: (event: any) => void, signal: AbortSignal) => Promise<any>} begin */
  constructor(begin) {
    this.#begin = begin;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    this.#run ??= this.#start();
    while (!this.#pieces.length && !this.#ended) {
      this.#news ??= Promise.withResolvers();
      await this.#news.promise;
    }
    if (this.#pieces.length) {
      return { done: /** @type {const} */ (false), value: /** @type {string} */ (this.#pieces.shift()) };
    }
    const error = this.#error;
    this.#error = null; // told once
    if (error) throw error;
    return { done: /** @type {const} */ (true), value: undefined };
  }

  async return() {
    this.#controller.abort(aborted()); // left early: stop computing, and wait until it has
    await this.#run;
    this.#error = null;
    this.#pieces = [];
    this.#ended = true;
    return { done: /** @type {const} */ (true), value: undefined };
  }

  async #start() {
    const onEvent = (/** @type {any} */ { text, stats }) => {
      if (text) this.#pieces.push(text);
      this.stats = stats;
      this.#wake();
    };
    try {
      this.stats = await this.#begin(onEvent, this.#controller.signal);
    } catch (error) {
      this.#error = error;
    }
    this.#ended = true;
    this.#wake();
  }

  #wake() {
    this.#news?.resolve();
    this.#news = null;
  }
}
