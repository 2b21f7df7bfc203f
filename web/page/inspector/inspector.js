// Inside the model: what `lm.inspect` computes for the text of the page.

import { element, make } from "../dom.js";
import { sentence } from "../format.js";
import { onPress } from "../press.js";
import { storyText } from "../story.js";
import { AttentionView } from "./attention.js";
import { LensView } from "./lens.js";

/** @typedef {import("../../gpt2.js").GPT2} GPT2 */

const TOP = 5;
const LENS_TOKENS = 8; // at the end of the text

const toggle = element("inspector-toggle", HTMLButtonElement);
const body = element("inspector-body", HTMLElement);
const compute = element("inspect", HTMLButtonElement);
const layers = element("inspected-layer", HTMLSelectElement);
const views = element("inspected", HTMLElement);
const message = element("inspector-message", HTMLElement);

export class Inspector {
  /** @type {GPT2 | null} */
  #lm = null;
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
    onPress(compute, () => void (this.#controller ? this.#controller.abort() : this.#compute(storyText(), true)));
    layers.addEventListener("change", () => void this.#compute(this.#text, false));
    new MutationObserver(() => this.#noteChange()).observe(element("text", HTMLElement), {
      childList: true,
      subtree: true,
      characterData: true,
    });
  }

  /** Shows what `lm` computes from now on. @param {GPT2 | null} lm */
  use(lm) {
    this.#controller?.abort();
    this.#lm = lm;
    compute.disabled = lm === null;
    layers.disabled = true;
    views.hidden = true;
    message.textContent = "";
  }

  /** Shows whether the views are of another text. */
  #noteChange() {
    if (views.hidden || this.#controller) return;
    message.textContent = storyText() === this.#text ? "" : "The text has changed since.";
  }

  /** @param {string} text @param {boolean} all whether the lens, too */
  async #compute(text, all) {
    const lm = this.#lm;
    if (!lm || this.#controller) return;
    const controller = (this.#controller = new AbortController());
    compute.textContent = "Stop";
    message.textContent = "Computing…";
    try {
      const attention = all ? 0 : Number(layers.value);
      const at = all ? await lastPositions(lm, text) : [];
      const lens = all ? { lens: TOP, at } : {};
      const found = await lm.inspect(text, { attention, ...lens, signal: controller.signal });
      this.#text = text;
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

/** Positions of the last tokens, from the end. @param {GPT2} lm @param {string} text */
async function lastPositions(lm, text) {
  const { length } = await lm.tokenizer.encode(text); // a start token may come before
  const shown = Math.min(LENS_TOKENS, Math.max(1, length));
  return Array.from({ length: shown }, (_, i) => i - shown);
}

/** @param {number} count */
function offerLayers(count) {
  layers.replaceChildren(...Array.from({ length: count }, (_, layer) => make("option", "", String(layer))));
}
