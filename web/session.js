/** Sessions of gpt2.js: texts in the worker that are continued (worker-sessions.js). */

import { portableSettings } from "./portable.js";
import { TextStream, wholeText } from "./text-stream.js";

/** What the constructors of `GPT2` and `Session` require. */
export const KEY = Symbol("only load() and session() make one");

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

  /** @param {{signal?: AbortSignal}} [options] */
  toBytes({ signal } = {}) {
    return this.#call("toBytes", [this.#id], { signal });
  }

  /** @returns {Promise<any>} */
  savedRun() {
    return this.#call("savedRun", [this.#id]);
  }

  async close() {
    forgotten.unregister(this);
    await this.#call("closeSession", [this.#id]).catch(() => {}); // the model's end has closed it
  }
}
