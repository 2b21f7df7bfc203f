/** Text that the worker generates, as an iterator of JavaScript. */

import { aborted } from "./rpc.js";

/** An iterator over pieces of text; generation starts at the first `next()`. */
export class TextStream {
  /** @type {any[]} strings, or tokens; of several texts {row, text} */
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
    const onEvent = (/** @type {any} */ { text, tokens, row, stats }) => {
      if (tokens) this.#pieces.push(...tokens);
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

/** The text of a stream, or its details. @param {TextStream} stream */
export async function wholeText(stream) {
  let whole = "";
  for await (const text of stream) whole += /** @type {any} */ (text).text ?? text; // of a stream of tokens
  return stream.details ?? whole;
}
