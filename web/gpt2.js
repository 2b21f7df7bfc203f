/**
 * GPT-2 in the browser, from JavaScript. Types and documentation: gpt2.d.ts.
 *
 *     const lm = await GPT2.load("fairytales");
 *     for await (const text of lm.stream("Once upon a time")) console.log(text);
 *
 * All work runs in one worker, created by the first call and shared by all models.
 */

import { Caller, aborted, errorOf } from "./rpc.js";

export { offline } from "./offline.js";

/** The memory of a worker that has ended. @type {import("./gpt2.js").Memory} */
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
const DISPOSE_TIMEOUT_MS = 5000; // until a worker that does not dispose of a model is ended

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

/** Requests persistent storage, once; workers cannot request it. */
function keepStorage() {
  if (asked) return;
  asked = true;
  navigator.storage.persist?.().catch(() => {});
}

/** A source in a form that the worker accepts: an array of files, an absolute URL. @param {any} source */
function portable(source) {
  if (typeof FileList !== "undefined" && source instanceof FileList) return [...source];
  return isRelative(source) ? new URL(source, globalThis.document?.baseURI ?? location.href).href : source;
}

/** Whether this is a path and not a repository's name (as in Python). @param {any} source */
const isRelative = (source) =>
  typeof source === "string" && !source.includes("://") && /^\.{0,2}\/|\/$|^[^@]*\/[^@]*\//.test(source);

/** Settings in a form that the worker accepts. @param {any} settings */
function portableSettings({ constraint, ...settings }) {
  if (constraint === undefined || constraint === null) return settings;
  return { ...settings, constraint: new URL(constraint, globalThis.document?.baseURI ?? location.href).href };
}

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
  /** Encodes and decodes; also while a text is generated. */
  tokenizer = {
    /** @param {string} text @param {any} [options] */
    encode: (text, options = {}) => this.#call("encode", [text, options]),
    /** @param {number[]} tokenIds */
    decode: (tokenIds) => this.#call("decode", [tokenIds]),
    /** @param {string | number[]} text @param {any} [options] */
    pieces: (text, options = {}) => this.#call("pieces", [text, options]),
  };
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
    if (key !== KEY) throw new TypeError("GPT2 has no public constructor; use `await GPT2.load(source)`");
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

  /** @param {any} prompt @param {any} [options] @returns {any} */
  stream(prompt, { signal, ...options } = {}) {
    return new TextStream((given) => this.#call("stream", [prompt, portableSettings(options)], given), signal);
  }

  /** @param {any} prompt @param {any} [options] @returns {Promise<any>} */
  async generate(prompt, { signal, ...options } = {}) {
    const several = Array.isArray(prompt) && typeof prompt[0] !== "number";
    if (several || options.numReturnSequences !== undefined) {
      const prompts = several ? prompt : [prompt];
      const texts = await this.#call("generate", [prompts, portableSettings(options)], { signal });
      return options.details ? texts : texts.map((/** @type {any} */ { text }) => text);
    }
    return wholeText(this.stream(prompt, { signal, ...options }));
  }

  /** @param {string | number[]} [prompt] @param {any} [options] @returns {Promise<Session>} */
  async session(prompt = [], options = {}) {
    return new Session(KEY, (...call) => this.#call(...call), await this.#call("session", [prompt, options]));
  }

  /** @param {Uint8Array} bytes @returns {Promise<Session>} */
  async loadSession(bytes) {
    return new Session(KEY, (...call) => this.#call(...call), await this.#call("loadSession", [bytes]));
  }

  /** @param {any} texts @param {any} [options] */
  logprobs(texts, { signal, ...options } = {}) {
    return this.#call("logprobs", [texts, options], { signal });
  }

  /** @param {any} texts @param {any} [options] */
  perplexity(texts, { signal, ...options } = {}) {
    return this.#call("perplexity", [texts, options], { signal });
  }

  /** @param {number[]} tokenIds @param {any} [options] */
  score(tokenIds, { signal, ...options } = {}) {
    return this.#call("score", [tokenIds, options], { signal });
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
      const late = setTimeout(() => this.#giveUp(), DISPOSE_TIMEOUT_MS);
      const held = await this.#call("dispose", [])
        .catch((error) => {
          if (!this.#caller.dead) throw error; // a dead worker holds nothing
        })
        .finally(() => clearTimeout(late));
      if (held) this[DELIVER]("memory", held);
    }
    this.#disposed = true;
  }

  /** Ends a worker whose Python code never awaits: nothing else can stop it. */
  #giveUp() {
    const message = `Python did not answer within ${DISPOSE_TIMEOUT_MS / 1000} seconds`;
    this.#caller.end(message);
    this[END](`the worker was ended: ${message}`);
  }

  /** Handles the end of the worker, which freed its memory. @param {string} message */
  [END](message) {
    this[DELIVER]("memory", NOTHING_HELD);
    this[DELIVER]("ended", { message });
  }

  /** @param {string} method @param {any[]} args @param {any} [options] */
  async #call(method, args, options) {
    if (this.#disposed) {
      const message = "this model was disposed. Load it again";
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

/** The text of a stream, or its details. @param {TextStream} stream */
async function wholeText(stream) {
  let whole = "";
  for await (const text of stream) whole += text;
  return stream.details ?? whole;
}

/** Closes sessions that are not referenced any more. @type {FinalizationRegistry<() => void>} */
const forgotten = new FinalizationRegistry((close) => close());

export class Session {
  #call;
  #id;

  /** @param {symbol} key @param {(method: string, args: any[], options?: any) => Promise<any>} call @param {number} id */
  constructor(key, call, id) {
    if (key !== KEY) throw new TypeError("Session has no public constructor; use `await lm.session(prompt)`");
    this.#call = call;
    this.#id = id;
    forgotten.register(this, () => void call("closeSession", [id]).catch(() => {}), this);
  }

  /** @param {any} [options] */
  stream({ signal, ...options } = {}) {
    // (The function refers to this session, which must not be closed while the text is generated.)
    return new TextStream((given) => this.#call("continue", [this.#id, portableSettings(options)], given), signal);
  }

  /** @param {any} [options] @returns {Promise<any>} */
  async generate(options) {
    return wholeText(this.stream(options));
  }

  /** @param {string | number[]} tokens @param {any} [options] */
  append(tokens, options = {}) {
    return this.#call("append", [this.#id, tokens, options]);
  }

  /** @param {number} tokens */
  rewind(tokens) {
    return this.#call("rewind", [this.#id, tokens]);
  }

  /** @param {string | number[]} tokens @param {any} [options] */
  edit(tokens, options = {}) {
    return this.#call("edit", [this.#id, tokens, options]);
  }

  async fork() {
    return new Session(KEY, this.#call, await this.#call("fork", [this.#id]));
  }

  tokenIds() {
    return this.#call("tokenIds", [this.#id]);
  }

  text() {
    return this.#call("text", [this.#id]);
  }

  toBytes() {
    return this.#call("toBytes", [this.#id]);
  }

  async close() {
    forgotten.unregister(this);
    await this.#call("closeSession", [this.#id]).catch(() => {}); // the model's end has closed it
  }
}

/** An iterator over pieces of text; generation starts at the first `next()`. */
class TextStream {
  /** @type {any[]} strings; of several texts {row, text} */
  #pieces = [];
  /** Resolves when a piece or the end has arrived. @type {PromiseWithResolvers<void> | null} */
  #news = null;
  /** @type {Promise<void> | null} */
  #run = null;
  /** @type {any} */
  #error = null;
  #ended = false;
  #controller = new AbortController();
  #begin;
  #signal;
  /** @type {any} */
  stats = null;
  /** @type {any} */
  details = null;

  /**
   * @param {(options: {onEvent: (event: any) => void, signal: AbortSignal}) => Promise<any>} begin
   * @param {AbortSignal} [signal] the caller's
   */
  constructor(begin, signal) {
    this.#begin = begin;
    const own = this.#controller.signal;
    this.#signal = signal ? AbortSignal.any([signal, own]) : own;
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
      return { done: /** @type {const} */ (false), value: this.#pieces.shift() };
    }
    const error = this.#error;
    this.#error = null; // thrown once
    if (error) throw error;
    return { done: /** @type {const} */ (true), value: undefined };
  }

  async return() {
    this.#controller.abort(aborted()); // the loop was left early: stop, and wait until it has stopped
    await this.#run;
    this.#error = null;
    this.#pieces = [];
    this.#ended = true;
    return { done: /** @type {const} */ (true), value: undefined };
  }

  async #start() {
    const onEvent = (/** @type {any} */ { text, row, stats }) => {
      if (text) this.#pieces.push(row === undefined ? text : { row, text });
      if (row === undefined) this.stats = stats;
      else (this.stats ??= [])[row] = stats;
      this.#wake();
    };
    try {
      const { stats, details } = await this.#begin({ onEvent, signal: this.#signal });
      this.stats = stats;
      this.details = details;
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
