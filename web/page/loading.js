// The loader: one model at a time, with listeners for the rest of the page.

import { GPT2 } from "../gpt2.js";

/**
 * @typedef {import("../gpt2.js").Source} Source
 * @typedef {import("../gpt2.js").Dtype} Dtype
 * @typedef {"empty" | "loading" | "ready"} State
 *
 * @typedef {object} Listeners what the page does when something happens to the model
 * @property {(state: State) => void} onState
 * @property {(progress: import("../gpt2.js").Progress) => void} onProgress
 * @property {(memory: import("../gpt2.js").Memory) => void} onMemory
 * @property {(message: string) => void} onNote device lost, recovered
 * @property {(message: string) => void} onEnded the worker broke down, or had to be ended
 */

const ENDLESS =
  "Python was running code that never waits and had to be ended. The next load restarts it.";

export class Loader {
  /** @type {GPT2 | null} */
  lm = null;
  /** @type {State} */
  state = "empty";
  /** @type {AbortController | null} */
  #controller = null;
  /** the model before, while it is disposed of @type {Promise<void> | null} */
  #leaving = null;
  /** @type {Listeners} */
  #listeners;

  /** @param {Listeners} listeners */
  constructor(listeners) {
    this.#listeners = listeners;
  }

  /**
   * Loads a model in place of the one before; resolves to it, or to null when cancelled.
   * Raises what the library raises. Does nothing during another load.
   * @param {Source} source
   * @param {Dtype | ""} dtype "" for the library's default
   * @returns {Promise<GPT2 | null>}
   */
  async load(source, dtype) {
    if (this.#controller) return null;
    const controller = new AbortController();
    this.#controller = controller;
    const { onProgress, onMemory } = this.#listeners;
    this.#become("loading");
    try {
      await this.#release(); // two models at once might not fit
      const options = { dtype: dtype || undefined, onProgress, onMemory, signal: controller.signal };
      this.lm = await GPT2.load(source, options);
      this.#listen(this.lm);
    } catch (error) {
      if (!controller.signal.aborted) throw error;
    } finally {
      this.#controller = null;
      this.#become(this.lm ? "ready" : "empty");
    }
    return this.lm;
  }

  /** Cancels the current load; the downloaded part is kept. */
  cancel() {
    this.#controller?.abort();
  }

  /** Frees the model's GPU memory. */
  async unload() {
    const released = this.#release();
    this.#become("empty");
    await released;
  }

  async #release() {
    const lm = this.lm;
    this.lm = null;
    if (lm) this.#leaving = lm.dispose().finally(() => (this.#leaving = null));
    await this.#leaving;
  }

  /** @param {GPT2} lm */
  #listen(lm) {
    const { onMemory, onNote, onEnded } = this.#listeners;
    lm.onmemory = onMemory;
    lm.onlost = (loss) => onNote(`The GPU was lost (${loss.message}). The model is reloaded with the next text.`);
    lm.onrecovered = () => onNote("The GPU was lost. The model was reloaded and the text resumed.");
    lm.onended = ({ message }) => {
      if (this.lm !== lm) return onEnded(ENDLESS);
      onEnded(`Python stopped working (${message}). Load the model again.`);
      void this.unload();
    };
  }

  /** @param {State} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#listeners.onState(state);
  }
}
