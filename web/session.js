/** Sessions of gpt2.js: texts in the worker that are continued (worker-sessions.js). */

import { checked, input } from "./arguments.js";
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

  /** @param {any} [given] */
  stream(given) {
    const { signal, ...options } = checked(given, "stream");
    // (The function refers to this session, which must not be closed while the text is generated.)
    const args = [this.#id, portableSettings(options)];
    return new TextStream((events) => this.#call("continue", args, events), signal);
  }

  /** @param {any} [options] @returns {Promise<any>} */
  async generate(options) {
    return wholeText(this.stream(options));
  }

  /** @param {string | number[]} tokens @param {any} [options] */
  async append(tokens, options) {
    return this.#call("append", [this.#id, input(tokens, "append"), checked(options, "append", ["allowedSpecial"])]);
  }

  /** @param {number} tokens */
  rewind(tokens) {
    return this.#call("rewind", [this.#id, tokens]);
  }

  /** @param {string | number[]} tokens @param {any} [options] */
  async edit(tokens, options) {
    return this.#call("edit", [this.#id, input(tokens, "edit"), checked(options, "edit", ["allowedSpecial"])]);
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

  /** @param {any} [options] */
  async toBytes(options) {
    const { signal } = checked(options, "toBytes", ["signal"]);
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
