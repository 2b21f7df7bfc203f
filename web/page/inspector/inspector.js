// Inside the model: what `inspect` of a model, or of the recorded run, gives for the text of the page.

import { element, make } from "../dom.js";
import { sentence } from "../format.js";
import { onPress } from "../press.js";
import { Recording } from "../recorded.js";
import { storyText } from "../story.js";
import { AttentionView } from "./attention.js";
import { LensView } from "./lens.js";

/**
 * @typedef {import("../../gpt2.js").GPT2} GPT2
 * @typedef {GPT2 | Recording} Source
 */

const TOP = 5;
const LENS_TOKENS = 8; // at the end of the text

const toggle = element("inspector-toggle", HTMLButtonElement);
const body = element("inspector-body", HTMLElement);
const compute = element("inspect", HTMLButtonElement);
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
    onPress(compute, () => {
      if (this.#controller) this.#controller.abort();
      else if (this.#lm) void this.#compute(this.#lm, storyText(), true);
    });
    layers.addEventListener("change", () => {
      if (this.#shown) void this.#compute(this.#shown, this.#text, false);
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
    if (!this.#shown) void this.#compute(recording, recording.text, true);
  }

  /** A text that begins stops what is computed; the first that ends replaces recorded views that are open. */
  #followStory() {
    if (story.dataset.state) this.#controller?.abort();
    else if (!body.hidden && this.#lm && this.#shown instanceof Recording) void this.#compute(this.#lm, storyText(), true);
  }

  /** Shows what `lm` computes from now on. @param {GPT2 | null} lm */
  use(lm) {
    this.#controller?.abort();
    this.#lm = lm;
    compute.disabled = lm === null;
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

  /** @param {Source} source @param {string} text @param {boolean} all whether the lens, too */
  async #compute(source, text, all) {
    if (this.#controller) return;
    const controller = (this.#controller = new AbortController());
    compute.textContent = "Stop";
    message.textContent = "Computing…";
    try {
      const attention = all ? 0 : Number(layers.value);
      const at = all ? await lastPositions(source, text) : [];
      const lens = all ? { lens: TOP, at } : {};
      const found = await source.inspect(text, { attention, ...lens, signal: controller.signal });
      [this.#shown, this.#text] = [source, text];
      recordedNote.textContent = source instanceof Recording ? `Recorded: ${source.name}. Generate to see your own text.` : "";
      this.#attention.show(found);
      if (found.lens) this.#lens.show(found);
      if (all) offerLayers((found.lens?.layers.length ?? 1) - 1);
      layers.disabled = false;
      views.hidden = false;
      message.textContent = "";
    } catch (error) {
      message.textContent = controller.signal.aborted ? "Stopped." : sentence(/** @type {Error} */ (error).message);
    } finally {
      this.#controller = null;
      compute.textContent = "Compute";
    }
  }
}

/** Positions of the last tokens, from the end. @param {Source} source @param {string} text */
async function lastPositions(source, text) {
  const { length } = await source.tokenizer.encode(text); // a start token may come before
  const shown = Math.min(LENS_TOKENS, Math.max(1, length));
  return Array.from({ length: shown }, (_, i) => i - shown);
}

/** @param {number} count */
function offerLayers(count) {
  layers.replaceChildren(...Array.from({ length: count }, (_, layer) => make("option", "", String(layer))));
}
