// Prompt in, text out, one text at a time. A text is a session of the model: it can be continued, its
// last part taken back and written again, and forked where another token is chosen.

import { announceNow } from "./announcer.js";
import { Branches, branchName } from "./branches.js";
import { complain, withdraw } from "./complaint.js";
import { element } from "./dom.js";
import { linkedBranch } from "./draft.js";
import { Editor } from "./editor.js";
import { showFigures } from "./figures.js";
import { writePart, writeSeveral } from "./generation.js";
import { forkOdds, isTokenBefore, named, selectOdds, showOdds } from "./inspector/odds.js";
import { onPress } from "./press.js";
import { readSettings, specialTokens } from "./settings.js";
import { beginStory, editStory, storyText } from "./story.js";
import { severalShown, showVersion } from "./versions.js";

/**
 * @typedef {import("../gpt2.js").GPT2} GPT2
 * @typedef {import("./generation.js").Call} Call
 * @typedef {import("./draft.js").State} State
 */

const prompt = element("prompt", HTMLTextAreaElement);
const button = element("generate", HTMLButtonElement);
const on = element("continue", HTMLButtonElement);
const undo = element("undo", HTMLButtonElement);
const again = element("again", HTMLButtonElement);
const change = element("edit", HTMLButtonElement);
const story = element("story", HTMLElement);
const message = element("writing-message", HTMLElement);
const RUNNING = "A text is being generated: press Esc to stop it.";

export class Writer {
  /** @type {GPT2 | null} */
  #lm = null;
  #name = "";
  /** @type {AbortController | null} the current text */
  #controller = null;
  #draft;
  #branches = new Branches((branch) => void this.#goTo(branch));
  #editor = new Editor({ onContinue: () => void this.#continue(), onDone: () => void this.#edit() });

  /** @param {import("./draft.js").Draft} draft the text that is shown */
  constructor(draft) {
    this.#draft = draft;
    onPress(button, () => {
      if (this.#controller) this.stop();
      else void this.generate();
    });
    onPress(on, () => void this.#continue());
    undo.addEventListener("click", () => void this.#takeBack());
    onPress(again, () => void this.#tryAgain());
    change.addEventListener("click", () => void this.#edit());
    prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!event.repeat) void this.generate();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.stop();
    });
  }

  /** Writes with `lm` from now on; null: there is no model. @param {GPT2 | null} lm @param {string} [name] */
  use(lm, name = "") {
    if (this.#lm && !lm) this.stop();
    this.#lm = lm;
    this.#name = name;
    const { linked, branch } = this.#draft;
    this.#draft.begin(null, linked, linked ? branch : undefined); // the model's end closes its sessions
    this.#branches.drop(this.#draft.branch);
    message.textContent = "";
    if (lm) withdraw();
    this.#draw();
  }

  /** Stops the current text; the pieces so far stay. */
  stop() {
    this.#controller?.abort();
  }

  /** Writes after the prompt; does nothing during another text. */
  async generate() {
    await this.#attempt(button, async (call) => {
      this.#branches.clear();
      if (call.settings.numReturnSequences > 1) return this.#several(call);
      beginStory(prompt.value);
      const { session } = this.#draft;
      this.#draft.begin(session);
      return writePart(this.#draft, call, async () => {
        if (session) await session.edit(prompt.value, specialTokens());
        else this.#draft.session = await call.lm.session(prompt.value, specialTokens());
      });
    });
  }

  async #continue() {
    await this.#attempt(on, (call) => writePart(this.#draft, call, () => this.#open(call.lm)));
  }

  /** Begins the session of a link's text. @param {GPT2} lm */
  async #open(lm) {
    message.textContent ||= await this.#draft.open(lm, specialTokens());
  }

  /** Shows the text of a link, which Continue goes on with, and its branches. @param {import("./share.js").Texts} texts */
  show({ linked, others, place }) {
    if (!linked) return;
    if (this.#controller) return void (message.textContent = RUNNING);
    this.#draft.end();
    const [shown, ...all] = [linked, ...others].map((each) => linkedBranch(each, prompt.value));
    this.#branches.show(all.toSpliced(place, 0, shown), shown);
    this.#editor.close();
    if (shown.state) void this.#draft.restore(shown.state);
    showFigures(null);
    this.#draw();
  }

  /** The texts of the page for a link; none while one is generated, and where there is none of a model. @returns {Promise<import("./share.js").Texts>} */
  async linked() {
    const linked = this.#controller ? null : await this.#draft.toLink(storyText(), this.#editor.changed !== null);
    return linked ? { linked, ...this.#branches.toLink(this.#draft.branch) } : { linked, others: [], place: 0 };
  }

  /** Writes the last part anew. */
  async #tryAgain() {
    await this.#attempt(again, (call) => writePart(this.#draft, call, () => this.#draft.undo({ whole: false })));
  }

  /**
   * Goes on from before a token of the text, with another one in its place: a branch.
   * @param {import("./inspector/odds.js").Entry} entry @param {import("./inspector/odds.js").Alternative} alternative
   */
  async fork(entry, alternative) {
    await this.#attempt(story, async (call, state) => {
      const { session } = state;
      if (!session) throw new Error("This text is not one of the loaded model. Press Generate first");
      if (!entry.node.isConnected) throw new Error("This token is no longer in the text. Choose another one");
      const fork = async () => {
        const ids = [...state.ids.slice(0, entry.at), alternative.id];
        await session.edit(ids);
        const piece = (await call.lm.tokenizer.pieces(ids)).at(-1) ?? "";
        forkOdds(entry, alternative, piece);
        const before = storyText().slice(0, -piece.length || undefined);
        const name = branchName(before, named(entry.piece), named(piece));
        this.#draft.fork(state, this.#branches.add(state.branch, name), entry.at);
        return { passing: true };
      };
      return writePart(this.#draft, call, fork);
    });
    selectOdds(entry.at);
  }

  /** Shows another branch as it was left. @param {import("./branches.js").Branch} branch */
  async #goTo(branch) {
    if (branch === this.#draft.branch) return;
    const go = () => this.#leave(async () => {
      message.textContent ||= (await this.#draft.goTo(branch, this.#lm, specialTokens())) ?? "";
      announceNow("Branch shown.");
    });
    if (this.#lm || this.#controller) return this.#write(story, go);
    await go(); // of a link
    this.#draw();
    story.focus();
  }

  /** Runs what may lead to another branch; the list keeps the one that is left. @param {() => Promise<unknown>} action */
  async #leave(action) {
    const state = await this.#draft.state();
    await action();
    showFigures(null);
    if (state.session && this.#draft.session !== state.session) return this.#branches.drop(this.#draft.branch);
    if (this.#draft.branch === state.branch) return;
    state.branch.state = state;
    this.#branches.mark(this.#draft.branch);
  }

  /** Opens the text as a field, or takes over what was typed there. */
  async #edit() {
    if (this.#editor.isOpen) return this.#write(change, async () => {});
    this.#editor.open();
    this.#draw();
  }

  /** Closes the field; the session keeps the first tokens, as far as they are the same. @param {GPT2} lm */
  async #closeEditor(lm) {
    const { changed, text } = this.#editor;
    if (changed || !(this.#draft.session || this.#draft.linked)) {
      const kept = await this.#draft.edit(lm, text, specialTokens());
      editStory(changed ?? { from: 0, to: 0, inserted: "" }, isTokenBefore(kept), this.#draft.heading(this.#name));
      showOdds();
      showFigures(null);
      message.textContent = kept ? `Text changed; tokens kept: ${kept}.` : "Text changed.";
    }
    this.#editor.close();
  }

  /** Undoes what was typed, else the last step. */
  async #takeBack() {
    if (this.#editor.changed) {
      this.#editor.close();
      return this.#draw();
    }
    await this.#write(undo, () => this.#leave(() => this.#draft.undo({ whole: true })));
  }

  /**
   * Runs an action that generates, given the text as it is; if it gives false or throws, because nothing could be
   * written, all is as it was.
   * @param {HTMLElement} origin @param {(call: Call, state: State) => Promise<boolean>} action
   */
  async #attempt(origin, action) {
    await this.#write(origin, async (lm, signal) => {
      const settings = readSettings();
      if (!settings) return;
      const state = await this.#draft.state();
      const showBranches = this.#branches.keep(state.branch);
      const restore = async () => {
        if (this.#lm !== lm) return state.show(); // it was unloaded, and closed its sessions
        showBranches();
        await this.#draft.restore(state);
      };
      try {
        if (!(await action({ lm, name: this.#name, settings, signal }, state))) await restore();
      } catch (error) {
        await restore();
        throw error;
      }
    });
  }

  /** Runs one action at a time; the focus goes to Stop meanwhile, and back. @param {HTMLElement} origin @param {(lm: GPT2, signal: AbortSignal) => Promise<void>} action */
  async #write(origin, action) {
    const lm = this.#lm;
    if (this.#controller || !lm) {
      message.textContent = this.#controller ? RUNNING : "There is no model yet: press Load above.";
      return;
    }
    const { signal } = (this.#controller = new AbortController());
    const typing = this.#editor.isOpen;
    const focused = typing || origin === story || document.activeElement === origin;
    if (focused) button.focus();
    message.textContent = "";
    withdraw();
    this.#draw();
    try {
      if (typing) await this.#closeEditor(lm);
      await action(lm, signal);
    } catch (error) {
      complain(error);
    }
    this.#controller = null;
    this.#draw();
    if (focused && document.activeElement === button) {
      if (this.#editor.isOpen) this.#editor.focus();
      else origin.focus(); // (a disabled one stays without)
    }
  }

  /** Generates several texts. @param {Call} call */
  async #several(call) {
    const [given, special] = [prompt.value, specialTokens()];
    const written = await writeSeveral(call, given, special, async (text, seed) => {
      await this.#write(button, async (lm) => this.#choose(await lm.session(given, special), given, text, seed));
      on.focus(); // the button that was pressed is gone
    });
    if (!written) return false;
    this.#draft.end();
    return true;
  }

  /** Goes on with one of several texts. @param {import("../gpt2.js").Session} session @param {string} given @param {string} written @param {number} seed */
  async #choose(session, given, written, seed) {
    this.#draft.begin(session);
    beginStory(given);
    const state = await this.#draft.state();
    this.#draft.remember(state);
    this.#draft.parts = [{ before: state.ids.length, seed }];
    await session.append(written);
    showVersion(written, this.#draft.heading(this.#name));
  }

  #draw() {
    const running = this.#controller !== null;
    button.textContent = running ? "Stop" : "Generate";
    button.classList.toggle("primary", !running);
    button.disabled = !this.#lm && !running;
    const { session, linked, full, canRepeat, canUndo } = this.#draft;
    const typing = this.#editor.isOpen;
    on.disabled = running || !(typing || linked || (session && !full));
    undo.disabled = running || !(typing || canUndo);
    again.disabled = running || !canRepeat;
    change.disabled = running || !this.#lm || severalShown();
    change.textContent = typing ? "Done" : "Edit";
    change.setAttribute("aria-expanded", String(typing));
    if (running) button.setAttribute("aria-keyshortcuts", "Escape");
    else button.removeAttribute("aria-keyshortcuts");
  }
}
