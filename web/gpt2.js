/**
 * GPT-2 in the browser, from JavaScript. Types and documentation: gpt2.d.ts.
 *
 *     const lm = await GPT2.load("fairytales");
 *     for await (const text of lm.stream("Once upon a time")) console.log(text);
 *
 * All work runs in one worker, created by the first call and shared by all models; it has another
 * one for downloads.
 */

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
const DISPOSE_TIMEOUT_MS = 5000; // until a worker that does not dispose of a model is ended

/** @type {Caller | null} */
let shared = null;
/** @type {Map<number, GPT2>} */
const loaded = new Map();

function caller() {
  if (shared) return shared;
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

/** @param {{baseURL: unknown}} options */
export function configure({ baseURL }) {
  const url = folderAddress(baseURL);
  if (shared && url.href !== atBase().href) {
    const message = `the library runs from ${atBase()} already. Call configure before all other calls`;
    throw new DOMException(message, "InvalidStateError");
  }
  setBase(url);
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
    if (several || options.numReturnSequences !== undefined || options.returnAllBeams) {
      const prompts = several ? prompt : [prompt];
      const texts = await this.#call("generate", [prompts, portableSettings(options)], { signal });
      return options.details || options.returnAllBeams ? texts : texts.map((/** @type {any} */ { text }) => text);
    }
    return wholeText(this.stream(prompt, { signal, ...options }));
  }

  /** @param {string | number[]} [prompt] @param {any} [options] @returns {Promise<Session>} */
  async session(prompt = [], options = {}) {
    return new Session(KEY, (...call) => this.#call(...call), await this.#call("session", [prompt, options]));
  }

  /** @param {Uint8Array} bytes @param {{signal?: AbortSignal}} [options] @returns {Promise<Session>} */
  async loadSession(bytes, { signal } = {}) {
    return new Session(KEY, (...call) => this.#call(...call), await this.#call("loadSession", [bytes], { signal }));
  }

  /** @param {any} texts @param {any} [options] */
  logprobs(texts, { signal, ...options } = {}) {
    return this.#call("logprobs", [texts, options], { signal });
  }

  /** @param {any} texts @param {any} [options] */
  perplexity(texts, { signal, ...options } = {}) {
    return this.#call("perplexity", [texts, options], { signal });
  }

  /** @param {string | number[]} input @param {any} [options] */
  inspect(input, { signal, ...options } = {}) {
    return this.#call("inspect", [input, options], { signal });
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
