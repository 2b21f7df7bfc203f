/**
 * GPT-2 in the browser, from JavaScript. Types and documentation: gpt2.d.ts.
 *
 *     const lm = await GPT2.load("fairytales");
 *     for await (const text of lm.stream("Once upon a time")) console.log(text);
 *
 * All work runs in one worker, created by the first call and shared by all models; it has another
 * one for downloads.
 */

import { checked, input, texts } from "./arguments.js";
import { atBase, folderAddress, setBase, startWorker } from "./base.js";
import { portable, portableSettings } from "./portable.js";
import { Caller, errorOf } from "./rpc.js";
import { KEY, Session } from "./session.js";
import { TextStream, wholeText } from "./text-stream.js";

export { offline } from "./offline.js";
export { Session };

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
const SPECIAL = ["allowedSpecial"];
const EVALUATION = ["stride", "signal"];
const DISPOSE_TIMEOUT_MS = 5000; // until a worker that does not dispose of a model is ended

/** @type {Caller | null} */
let shared = null;
/** @type {Map<number, GPT2>} */
const loaded = new Map();

function caller() {
  if (shared) return shared;
  if (typeof Worker === "undefined" || typeof location === "undefined") {
    const message = "this library runs in browsers, in a page or worker; elsewhere use its Python package";
    throw errorOf({ name: "NoAdapterError", message });
  }
  const worker = startWorker("web/worker.js");
  const unloaded = `${atBase("web/worker.js")} could not be loaded (configure({ baseURL }) sets its folder)`;
  const made = new Caller(worker, unloaded);
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

/** @param {any} options */
export function configure(options) {
  const { baseURL } = checked(options, "configure", ["baseURL"]);
  const url = folderAddress(baseURL);
  if (shared && url.href !== atBase().href) {
    const message = `the library runs from ${atBase()} already. Call configure before all other calls`;
    throw new DOMException(message, "InvalidStateError");
  }
  setBase(url);
}

export const check = async () => caller().call("check", []);

export const models = {
  /** @param {any} source @param {any} [given] */
  async size(source, given) {
    const { signal, ...options } = checked(given, "models.size", ["hub", "signal"]);
    return caller().call("size", [portable(source, options.hub), options], { signal });
  },
  offered: async () => caller().call("offered", []),
  list: async () => caller().call("list", []),
  /** @param {string} id */
  remove: async (id) => caller().call("remove", [id]),
};

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
    encode: async (text, options) => this.#call("encode", [input(text, "encode"), checked(options, "encode", SPECIAL)]),
    /** @param {number[]} tokenIds */
    decode: async (tokenIds) => this.#call("decode", [input(tokenIds, "decode")]),
    /** @param {string | number[]} text @param {any} [options] */
    pieces: async (text, options) => this.#call("pieces", [input(text, "pieces"), checked(options, "pieces", SPECIAL)]),
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

  /** @param {any} source @param {any} [given] */
  static async load(source, given) {
    const names = ["dtype", "hub", "update", "onProgress", "onMemory", "signal"];
    const { onProgress, onMemory, signal, ...options } = checked(given, "GPT2.load", names);
    const made = caller();
    const { model, info, saved } = await made.call("load", [portable(source, options.hub), options], {
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

  /** @param {any} prompt @param {any} [given] @returns {any} */
  stream(prompt, given) {
    const { signal, ...options } = checked(given, "stream");
    const args = [input(prompt, "stream", true), portableSettings(options)];
    return new TextStream((events) => this.#call("stream", args, events), signal);
  }

  /** @param {any} prompt @param {any} [given] @returns {Promise<any>} */
  async generate(prompt, given) {
    const { signal, ...options } = checked(given, "generate");
    input(prompt, "generate", true);
    const several = Array.isArray(prompt) && typeof prompt[0] !== "number";
    if (several || (options.numReturnSequences ?? undefined) !== undefined || options.returnAllBeams) {
      const prompts = texts(several ? prompt : [prompt]);
      const found = await this.#call("generate", [prompts, portableSettings(options)], { signal });
      return options.details || options.returnAllBeams ? found : found.map((/** @type {any} */ { text }) => text);
    }
    return wholeText(this.stream(prompt, { signal, ...options }));
  }

  /** @param {string | number[]} [prompt] @param {any} [options] @returns {Promise<Session>} */
  async session(prompt = [], options = {}) {
    const args = [input(prompt, "session"), checked(options, "session")];
    return new Session(KEY, (...call) => this.#call(...call), await this.#call("session", args));
  }

  /** @param {Uint8Array} bytes @param {any} [options] @returns {Promise<Session>} */
  async loadSession(bytes, options) {
    const { signal } = checked(options, "loadSession", ["signal"]);
    if (!(bytes instanceof Uint8Array)) throw new TypeError("loadSession takes the Uint8Array of toBytes");
    return new Session(KEY, (...call) => this.#call(...call), await this.#call("loadSession", [bytes], { signal }));
  }

  /** @param {any} texts @param {any} [given] */
  async logprobs(texts, given) {
    const { signal, ...options } = checked(given, "logprobs", EVALUATION);
    return this.#call("logprobs", [input(texts, "logprobs", true), options], { signal });
  }

  /** @param {any} texts @param {any} [given] */
  async perplexity(texts, given) {
    const { signal, ...options } = checked(given, "perplexity", EVALUATION);
    return this.#call("perplexity", [input(texts, "perplexity", true), options], { signal });
  }

  /** @param {string | number[]} text @param {any} [given] */
  async inspect(text, given) {
    const { signal, ...options } = checked(given, "inspect");
    return this.#call("inspect", [input(text, "inspect"), options], { signal });
  }

  /** @param {number[]} tokenIds @param {any} [given] */
  async score(tokenIds, given) {
    const { signal, ...options } = checked(given, "score", ["targetIds", "signal"]);
    return this.#call("score", [input(tokenIds, "score"), options], { signal });
  }

  memory() {
    return this.#call("memory", []);
  }

  /** @param {string} code @param {any} [options] */
  async python(code, options) {
    const { signal } = checked(options, "python", ["signal"]);
    if (typeof code !== "string") throw new TypeError("python takes code as a text");
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
