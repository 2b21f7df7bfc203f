// Inside the model: what `inspect` of a model, or of the recorded run, gives for the text of the page.

import { element, make } from "../dom.js";
import { sentence } from "../format.js";
import { onPress } from "../press.js";
import { Recording } from "../recorded.js";
import { storyText } from "../story.js";
import { AttentionView } from "./attention.js";
import { LensView } from "./lens.js";
import { showBench, showTime } from "./time.js";

/**
 * @typedef {import("../../gpt2.js").GPT2} GPT2
 * @typedef {import("../../gpt2.js").Inspection} Inspection
 * @typedef {import("../../gpt2.js").InspectOptions} InspectOptions
 * @typedef {GPT2 | Recording} Source
 */

const TOP = 5;
const LENS_TOKENS = 8; // at the end of the text
const STEPS = 32; // browsers round each time to 100 µs, their mean has less error

const toggle = element("inspector-toggle", HTMLButtonElement);
const body = element("inspector-body", HTMLElement);
const compute = element("inspect", HTMLButtonElement);
const measure = element("measure", HTMLButtonElement);
const bench = element("measure-inspection", HTMLButtonElement);
const layers = element("inspected-layer", HTMLSelectElement);
const views = element("inspected", HTMLElement);
const message = element("inspector-message", HTMLElement);
const recordedNote = element("inspector-recorded", HTMLElement);
const story = element("story", HTMLElement);

export class Inspector {
  /** @type {GPT2 | null} */
  #lm = null;
  /** @type {Source | null} what the views are of */
  #shown = null;
  /** @type {AbortController | null} the current computation */
  #controller = null;
  #text = ""; // what the views show
  #attention = new AttentionView();
  #lens = new LensView();

  constructor() {
    toggle.addEventListener("click", () => {
      body.hidden = !body.hidden;
      toggle.setAttribute("aria-expanded", String(!body.hidden));
    });
    this.#startOrStop(compute, (lm) => this.#compute(lm, storyText()));
    this.#startOrStop(measure, (lm) => this.#measure(lm, { time: STEPS, peak: true }, measure, showTime));
    this.#startOrStop(bench, (lm) => this.#measure(lm, { bench: 3 }, bench, showBench));
    layers.addEventListener("change", () => {
      const attention = Number(layers.value);
      if (this.#shown) void this.#ask(this.#shown, this.#text, async () => ({ attention }), compute, (found) => this.#attention.show(found));
    });
    new MutationObserver(() => this.#noteChange()).observe(element("text", HTMLElement), {
      childList: true,
      subtree: true,
      characterData: true,
    });
    new MutationObserver(() => this.#followStory()).observe(story, { attributeFilter: ["data-state"] });
  }

  /** Shows a recorded run until there are views of a model. @param {Recording} recording */
  showRecorded(recording) {
    if (!this.#shown) void this.#compute(recording, recording.text);
  }

  /** A text that begins stops what is computed; the first that ends replaces recorded views that are open. */
  #followStory() {
    if (story.dataset.state) this.#controller?.abort();
    else if (!body.hidden && this.#lm && this.#shown instanceof Recording) void this.#compute(this.#lm, storyText());
  }

  /** Shows what `lm` computes from now on. @param {GPT2 | null} lm */
  use(lm) {
    this.#controller?.abort();
    this.#lm = lm;
    compute.disabled = measure.disabled = bench.disabled = lm === null;
    if (this.#shown instanceof Recording) return; // the views are not of the model that goes
    this.#shown = null;
    layers.disabled = true;
    views.hidden = true;
    message.textContent = "";
  }

  /** Shows whether the views are of another text. */
  #noteChange() {
    if (views.hidden || this.#controller) return;
    message.textContent = storyText() === this.#text ? "" : "The text has changed since.";
  }

  /** @param {HTMLButtonElement} button @param {(lm: GPT2) => Promise<void>} work */
  #startOrStop(button, work) {
    onPress(button, () => {
      if (this.#controller) this.#controller.abort();
      else if (this.#lm) void work(this.#lm);
    });
  }

  /** Shows attention and lens; of a recorded run the time, too. @param {Source} source @param {string} text */
  async #compute(source, text) {
    const options = async () => ({ attention: 0, lens: TOP, at: await lastPositions(source, text) });
    await this.#ask(source, text, options, compute, (found) => {
      [this.#shown, this.#text] = [source, text];
      const recorded = source instanceof Recording;
      recordedNote.textContent = recorded ? `Recorded: ${source.name}. Generate to see your own text.` : "";
      this.#attention.show(found);
      this.#lens.show(found);
      layers.replaceChildren(...(found.lens?.layers.slice(1) ?? []).map((_, i) => make("option", "", String(i))));
      showTime(found);
      showBench(found);
      layers.disabled = false;
      views.hidden = false;
    });
  }

  /**
   * Measures times of the text.
   * @param {GPT2} lm @param {InspectOptions} options @param {HTMLButtonElement} button @param {(found: Inspection) => void} show
   */
  async #measure(lm, options, button, show) {
    const text = storyText();
    if (this.#shown instanceof Recording) await this.#compute(lm, text); // nothing recorded beside it
    await this.#ask(lm, text, async () => options, button, show);
  }

  /**
   * Asks for one thing at a time; its button stops it.
   * @param {Source} source @param {string} text @param {() => Promise<InspectOptions>} options
   * @param {HTMLButtonElement} button @param {(found: Inspection) => void} show
   */
  async #ask(source, text, options, button, show) {
    if (this.#controller) return;
    const controller = (this.#controller = new AbortController());
    const label = button.textContent;
    button.textContent = "Stop";
    message.textContent = "Computing…";
    try {
      show(await source.inspect(text, { ...(await options()), signal: controller.signal }));
      message.textContent = "";
    } catch (error) {
      message.textContent = controller.signal.aborted ? "Stopped." : sentence(/** @type {Error} */ (error).message);
    } finally {
      this.#controller = null;
      button.textContent = label;
    }
  }
}

/** Positions of the last tokens, from the end. @param {Source} source @param {string} text */
async function lastPositions(source, text) {
  const { length } = await source.tokenizer.encode(text); // a start token may come before
  const shown = Math.min(LENS_TOKENS, Math.max(1, length));
  return Array.from({ length: shown }, (_, i) => i - shown);
}
