// Prompt in, text out, one text at a time. A text is a session of the model: it can be continued, its
// last part taken back, and written again.

import { announceNow } from "./announcer.js";
import { element } from "./dom.js";
import { showFigures } from "./figures.js";
import { sentence } from "./format.js";
import { keepOdds, oddsOptions, showOdds } from "./inspector/odds.js";
import { onPress } from "./press.js";
import { readSettings, specialTokens, stopTexts } from "./settings.js";
import { Versions, showVersion, together } from "./versions.js";
import { appendStory, beginPart, beginStory, dropPart, endStory, keepStory } from "./story.js";

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
    message.textContent = "";
    if (lm) complaint.textContent = "";
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
      await this.#attempt(() => {
        this.#parts = [];
        if (settings.numReturnSequences > 1) return this.#several(lm, settings);
        beginStory(prompt.value);
        return this.#part(settings, () => this.#begin(lm));
      });
    });
  }

  /** The session with the prompt alone. @param {import("../gpt2.js").GPT2} lm */
  async #begin(lm) {
    if (this.#session) await this.#session.edit(prompt.value, specialTokens());
    else this.#session = await lm.session(prompt.value, specialTokens());
    return this.#session;
  }

  async #continue() {
    const [session, settings] = [this.#session, readSettings()];
    if (session && settings) await this.#attempt(() => this.#part(settings, async () => session));
  }

  /**
   * Runs `action`; if it gives false, because nothing could be written, all is as it was before.
   * @param {() => Promise<boolean>} action
   */
  async #attempt(action) {
    const [lm, session, parts, full] = [this.#lm, this.#session, [...this.#parts], this.#full];
    const ids = session ? await session.tokenIds() : [];
    const shown = [keepStory(), keepOdds()];
    if (await action()) return;
    for (const show of shown) show();
    if (this.#lm !== lm) return; // it was unloaded, and closed its sessions
    if (!session) void this.#session?.close();
    [this.#session, this.#parts, this.#full] = [session, parts, full];
    await session?.edit(ids);
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
    const session = this.#session;
    if (!settings || !session) return;
    await this.#attempt(async () => {
      await this.#takeBack();
      return this.#part(settings, async () => session);
    });
  }

  /**
   * Runs one action at a time. The focus goes to Stop meanwhile, and back.
   * @param {HTMLButtonElement} origin @param {() => Promise<void>} action
   */
  async #write(origin, action) {
    if (this.#controller || !this.#lm) {
      const running = "A text is being generated: press Esc to stop it.";
      message.textContent = this.#controller ? running : "There is no model yet: press Load above.";
      return;
    }
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
   * Writes the next part of the text; gives false if an error or a stop came before any of it.
   * @param {import("./settings.js").Values} settings @param {() => Promise<Session>} open
   */
  async #part({ numReturnSequences: _, ...settings }, open) {
    const { signal } = /** @type {AbortController} */ (this.#controller);
    const heading = this.#heading(settings.seed);
    beginPart(heading);
    showFigures(null);
    showOdds(null);
    /** @type {import("../gpt2.js").TextStream | null} */
    let stream = null;
    let problem = null;
    let written = "";
    try {
      const session = await open();
      const before = (await session.tokenIds()).length;
      this.#parts.push({ before, seed: settings.seed });
      stream = session.stream({ ...settings, ...stopTexts(), ...oddsOptions(), wait: true, signal });
      for await (const piece of stream) {
        written += piece;
        appendStory(piece);
        showFigures(stream.stats);
      }
      if (stream.stats?.finishReason === "stop_text") await this.#dropStopText(session, before, written);
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
    return written !== "" || !(problem || signal.aborted);
  }

  /**
   * Generates several texts after the prompt, together; gives false if an error or a stop came before any text.
   * @param {import("../gpt2.js").GPT2} lm @param {import("./settings.js").Values} settings
   */
  async #several(lm, { numReturnSequences: count, seed, ...settings }) {
    const { signal } = /** @type {AbortController} */ (this.#controller);
    const [given, special] = [prompt.value, specialTokens()];
    const versions = new Versions(given, count, `${this.#name}, seeds ${seed} to ${seed + count - 1}`);
    showFigures(null);
    showOdds(null);
    const options = { ...settings, ...stopTexts(), ...special, seed, numReturnSequences: count, wait: true, signal };
    const stream = lm.stream([given], options);
    let problem = null;
    let any = false;
    try {
      for await (const { row, text } of stream) {
        any = true;
        versions.append(row, text);
        showFigures(together(stream.stats));
      }
    } catch (error) {
      if (!signal.aborted) problem = error;
    }
    const stats = together(stream.stats);
    versions.end(async (row, text) => {
      await this.#write(button, () => this.#choose(given, special, text, stream.stats?.[row]?.seed ?? seed + row));
      on.focus(); // the button that was pressed is gone
    });
    showFigures(stats, problem ? "error" : signal.aborted ? "aborted" : (stats?.finishReason ?? "several"));
    if (problem) complain(problem);
    else announceNow(signal.aborted ? "Stopped." : "Texts finished.");
    if (!any && (problem || signal.aborted)) return false;
    void this.#session?.close();
    this.#session = null;
    this.#full = false;
    return true;
  }

  /**
   * Goes on with one of several texts.
   * @param {string} given the prompt @param {{allowedSpecial?: "all"}} special @param {string} written @param {number} seed
   */
  async #choose(given, special, written, seed) {
    const session = await this.#lm?.session(given, special);
    if (!session) return;
    this.#session = session;
    this.#parts = [{ before: (await session.tokenIds()).length, seed }];
    this.#full = false;
    await session.append(written);
    showVersion(given, written, this.#heading());
  }

  /**
   * Takes the stop text, which the page does not show, from the session. What was computed for the
   * tokens that remain is kept, also where encoding the text would give other tokens.
   * @param {Session} session @param {number} before tokens of it before this part @param {string} written
   */
  async #dropStopText(session, before, written) {
    const ids = (await session.tokenIds()).slice(before);
    const pieces = (await this.#lm?.tokenizer.pieces(ids)) ?? [];
    let [kept, length] = [0, 0];
    for (let end = 0, i = 0; i < pieces.length; i++) {
      end += pieces[i].length; // (tokens of a part of a character have no text; the last of them has it)
      if (end > written.length) break;
      if (end > length) [kept, length] = [i + 1, end];
    }
    await session.rewind(ids.length - kept);
    if (length < written.length) await session.append(written.slice(length)); // the stop text began in a token
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
