// Prompt in, text out, one text at a time. A text is a session of the model: it can be continued, its
// last part taken back, and written again.

import { announceNow } from "./announcer.js";
import { element } from "./dom.js";
import { showFigures } from "./figures.js";
import { sentence } from "./format.js";
import { oddsOptions, showOdds } from "./odds.js";
import { onPress } from "./press.js";
import { readSettings, specialTokens, stopTexts } from "./settings.js";
import { appendStory, beginPart, beginStory, dropPart, endStory, storyText } from "./story.js";

/**
 * @typedef {import("../gpt2.js").Session} Session
 * @typedef {{before: number, seed: number}} Part tokens of the session before this part of the text, and its seed
 */

const prompt = element("prompt", HTMLTextAreaElement);
const button = element("generate", HTMLButtonElement);
const on = element("continue", HTMLButtonElement);
const undo = element("undo", HTMLButtonElement);
const again = element("again", HTMLButtonElement);
const message = element("writing-message", HTMLElement);
const complaint = element("writing-error", HTMLElement);

export class Writer {
  /** @type {import("../gpt2.js").GPT2 | null} */
  #lm = null;
  #name = "";
  /** @type {AbortController | null} the current text */
  #controller = null;
  /** @type {Session | null} of the text that is shown */
  #session = null;
  /** @type {Part[]} */
  #parts = [];
  /** The text cannot go on: the context is full. */
  #full = false;

  constructor() {
    onPress(button, () => {
      if (this.#controller) this.stop();
      else void this.generate();
    });
    onPress(on, () => void this.#write(on, () => this.#continue()));
    undo.addEventListener("click", () => void this.#write(undo, () => this.#takeBack()));
    onPress(again, () => void this.#write(again, () => this.#tryAgain()));
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
    this.#session = null; // the model's end closes it
    this.#parts = [];
    this.#draw();
  }

  /** Stops the current text; the pieces so far stay. */
  stop() {
    this.#controller?.abort();
  }

  /** Writes after the prompt; does nothing during another text. */
  async generate() {
    await this.#write(button, async () => {
      const [lm, settings] = [this.#lm, readSettings()];
      if (!lm || !settings) return;
      void this.#session?.close();
      this.#session = null;
      this.#parts = [];
      beginStory(prompt.value);
      await this.#part(settings, async () => (this.#session = await lm.session(prompt.value, specialTokens())));
    });
  }

  async #continue() {
    const [session, settings] = [this.#session, readSettings()];
    if (session && settings) await this.#part(settings, async () => session);
  }

  /** Removes the last part of the text. */
  async #takeBack() {
    const [session, part] = [this.#session, this.#parts.pop()];
    if (!session || !part) return;
    dropPart(this.#heading());
    showOdds(null);
    showFigures(null);
    this.#full = false;
    await session.rewind((await session.tokenIds()).length - part.before);
  }

  async #tryAgain() {
    const settings = readSettings();
    if (!settings) return;
    await this.#takeBack();
    const session = this.#session;
    if (session) await this.#part(settings, async () => session);
  }

  /**
   * Runs one action at a time. The focus goes to Stop meanwhile, and back.
   * @param {HTMLButtonElement} origin @param {() => Promise<void>} action
   */
  async #write(origin, action) {
    if (this.#controller || !this.#lm) return;
    this.#controller = new AbortController();
    const focused = document.activeElement === origin;
    if (focused) button.focus();
    message.textContent = "";
    complaint.textContent = "";
    this.#draw();
    try {
      await action();
    } catch (error) {
      complain(error);
    }
    this.#controller = null;
    this.#draw();
    if (focused && document.activeElement === button && !origin.disabled) origin.focus();
  }

  /**
   * Writes the next part of the text.
   * @param {import("./settings.js").Values} settings @param {() => Promise<Session>} open
   */
  async #part(settings, open) {
    const { signal } = /** @type {AbortController} */ (this.#controller);
    const heading = this.#heading(settings.seed);
    beginPart(heading);
    showFigures(null);
    showOdds(null);
    /** @type {import("../gpt2.js").TextStream | null} */
    let stream = null;
    let problem = null;
    try {
      const session = await open();
      this.#parts.push({ before: (await session.tokenIds()).length, seed: settings.seed });
      stream = session.stream({ ...settings, ...stopTexts(), ...oddsOptions(), signal });
      for await (const piece of stream) {
        appendStory(piece);
        showFigures(stream.stats);
      }
      // The session has the stop text, which the page does not show.
      if (stream.stats?.finishReason === "stop_text") await session.edit(storyText(), specialTokens());
    } catch (error) {
      if (!signal.aborted) problem = error;
    }
    endStory();
    showOdds(stream?.details ?? null);
    const stats = stream?.stats ?? null;
    showFigures(stats, problem ? "error" : signal.aborted ? "aborted" : stats?.finishReason);
    this.#full = stats?.finishReason === "context";
    if (problem) complain(problem);
    else announceNow(signal.aborted ? "Stopped." : "Text finished.");
  }

  /** @param {...number} seeds of the next part */
  #heading(...seeds) {
    const all = [...this.#parts.map(({ seed }) => seed), ...seeds];
    return all.length ? `${this.#name}, seed ${all.join(", ")}` : this.#name;
  }

  #draw() {
    const running = this.#controller !== null;
    button.textContent = running ? "Stop" : "Generate";
    button.classList.toggle("primary", !running);
    button.disabled = !this.#lm && !running;
    on.disabled = running || !this.#session || this.#full;
    undo.disabled = again.disabled = running || !this.#session || !this.#parts.length;
    if (running) button.setAttribute("aria-keyshortcuts", "Escape");
    else button.removeAttribute("aria-keyshortcuts");
  }
}

/** Shows an error below the Generate button. @param {unknown} problem */
function complain(problem) {
  complaint.textContent = sentence(problem instanceof Error ? problem.message : String(problem));
  complaint.scrollIntoView({ block: "nearest" });
}
