// The text as a field, to be changed anywhere: it takes the text's place while it is open.

import { element } from "./dom.js";
import { storyText } from "./story.js";

const box = element("edited", HTMLTextAreaElement);
const story = element("story", HTMLElement);

export class Editor {
  #shown = ""; // the text on the page
  #before = ""; // the same in the field, which has its own line ends

  /** @param {{onContinue: () => void, onDone: () => void}} keys what Ctrl+Enter and Esc do */
  constructor({ onContinue, onDone }) {
    box.addEventListener("keydown", (event) => {
      if (event.isComposing || event.repeat) return;
      const act = event.key === "Escape" ? onDone : event.key === "Enter" && (event.ctrlKey || event.metaKey) && onContinue;
      if (!act) return;
      event.preventDefault();
      act();
    });
  }

  get isOpen() {
    return !box.hidden;
  }

  /** Opens with the text of the page; the caret is at its end. */
  open() {
    this.#shown = box.value = storyText();
    this.#before = box.value;
    [box.hidden, story.hidden] = [false, true];
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
    box.scrollTop = box.scrollHeight;
  }

  focus() {
    box.focus();
  }

  get text() {
    return box.value;
  }

  /** Where the text was changed; null if it was not. */
  get changed() {
    return this.isOpen && box.value !== this.#before ? difference(this.#shown, box.value) : null;
  }

  /** Shows the text again. */
  close() {
    [box.hidden, story.hidden] = [true, false];
  }
}

/**
 * Where two texts differ: characters `from` to `to` of the first, and what the second has there.
 * @param {string} before @param {string} after @returns {{from: number, to: number, inserted: string}}
 */
export function difference(before, after) {
  const shorter = Math.min(before.length, after.length);
  let from = 0;
  while (from < shorter && before[from] === after[from]) from++;
  let end = 0;
  while (end < shorter - from && before.at(-1 - end) === after.at(-1 - end)) end++;
  if (isLow(before, from) || isLow(after, from)) from--; // a character of two code units is not split
  if (isLow(before, before.length - end) || isLow(after, after.length - end)) end--;
  return { from, to: before.length - end, inserted: after.slice(from, after.length - end) };
}

/** Whether a low surrogate follows its high one at this place. @param {string} text @param {number} at */
const isLow = (text, at) => at > 0 && at < text.length && text.codePointAt(at - 1) !== text.charCodeAt(at - 1);
