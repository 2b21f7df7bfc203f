// Prompt in, text out: Generate and Stop in one place, one text at a time.

import { announceNow } from "./announcer.js";
import { element } from "./dom.js";
import { showFigures } from "./figures.js";
import { sentence } from "./format.js";
import { oddsOptions, showOdds } from "./odds.js";
import { onPress } from "./press.js";
import { otherSettings, readSettings } from "./settings.js";
import { appendStory, beginStory, endStory } from "./story.js";

const prompt = element("prompt", HTMLTextAreaElement);
const button = element("generate", HTMLButtonElement);
const message = element("writing-message", HTMLElement);
const complaint = element("writing-error", HTMLElement);

export class Writer {
  /** @type {import("../gpt2.js").GPT2 | null} */
  #lm = null;
  #name = "";
  /** @type {AbortController | null} the current text */
  #controller = null;

  constructor() {
    onPress(button, () => {
      if (this.#controller) this.stop();
      else void this.generate();
    });
    prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!event.repeat) void this.generate();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.stop();
    });
  }

  /**
   * Writes with `lm` from now on; null: there is no model.
   * @param {import("../gpt2.js").GPT2 | null} lm
   * @param {string} [name]
   */
  use(lm, name = "") {
    if (this.#lm && !lm) this.stop();
    this.#lm = lm;
    this.#name = name;
    this.#draw();
  }

  /** Stops the current text; the pieces so far stay. */
  stop() {
    this.#controller?.abort();
  }

  /** Continues the prompt; does nothing during another text. */
  async generate() {
    if (this.#controller || !this.#lm) return;
    const settings = readSettings();
    if (!settings) return;
    const controller = new AbortController();
    this.#controller = controller;
    this.#draw();
    message.textContent = "";
    complaint.textContent = "";
    beginStory(prompt.value, `${this.#name}, seed ${settings.seed}`);
    showFigures(null);
    showOdds(null);
    const options = { ...settings, ...otherSettings(), ...oddsOptions(), signal: controller.signal };
    const stream = this.#lm.stream(prompt.value, options);
    let problem = null;
    try {
      for await (const piece of stream) {
        appendStory(piece);
        showFigures(stream.stats);
      }
    } catch (error) {
      if (!controller.signal.aborted) problem = error;
    }
    this.#controller = null;
    endStory();
    showOdds(stream.details);
    const stopped = controller.signal.aborted;
    const reason = stopped ? "aborted" : stream.stats?.finishReason;
    showFigures(stream.stats, problem ? "error" : reason);
    if (problem) complain(problem);
    else announceNow(stopped ? "Stopped." : "Text finished.");
    this.#draw();
  }

  #draw() {
    const running = this.#controller !== null;
    button.textContent = running ? "Stop" : "Generate";
    button.classList.toggle("primary", !running);
    button.disabled = !this.#lm && !running;
    if (running) button.setAttribute("aria-keyshortcuts", "Escape");
    else button.removeAttribute("aria-keyshortcuts");
  }
}

/** Shows an error below the Generate button. @param {unknown} problem */
function complain(problem) {
  complaint.textContent = sentence(problem instanceof Error ? problem.message : String(problem));
  complaint.scrollIntoView({ block: "nearest" });
}
