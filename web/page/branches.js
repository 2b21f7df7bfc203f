// Branches of the text: each alternative token that was chosen begins one, and the list goes back to any.

import { button, element, make } from "./dom.js";

/**
 * @typedef {object} Branch
 * @property {string} name where it left the text before it, and with which token
 * @property {import("./draft.js").State | null} state how it was when it was left
 */

export const FIRST = "The first text";
const MOST = 20;
const SHOWN = 24; // characters of the text before a branch

const box = element("branches", HTMLElement);
const list = element("branch-list", HTMLOListElement);

export class Branches {
  /** @type {Branch[]} oldest first */
  #all = [];
  #onChoose;

  /** @param {(branch: Branch) => void} onChoose */
  constructor(onChoose) {
    this.#onChoose = onChoose;
  }

  /** The list of now, as a function that shows it again. @param {Branch} current */
  keep(current) {
    const all = this.#all;
    return () => this.#draw(all, current);
  }

  clear() {
    this.#draw([], null);
  }

  /** Adds a branch of `origin`, and gives it. @param {Branch} origin @param {string} name */
  add(origin, name) {
    const made = { name, state: null };
    const known = this.#all.includes(origin) ? this.#all : [...this.#all, origin];
    this.#draw([...known, made].slice(-MOST), made);
    return made;
  }

  /** Shows which one is on the page. @param {Branch} current */
  mark(current) {
    this.#draw(this.#all, current);
  }

  /** @param {Branch[]} all @param {Branch | null} current */
  #draw(all, current) {
    this.#all = all;
    box.hidden = !all.length;
    const rows = all.map((branch) => {
      const shown = branch === current;
      const choice = button(shown ? `${branch.name} (shown)` : branch.name, () => this.#onChoose(branch));
      if (shown) choice.setAttribute("aria-current", "true");
      return make("li", "", choice);
    });
    list.replaceChildren(...rows);
  }
}

/** The branch that a new text is. @returns {Branch} */
export const firstBranch = () => ({ name: FIRST, state: null });

/** The name of a branch. @param {string} before the text before it @param {string} old @param {string} piece */
export function branchName(before, old, piece) {
  const end = before.length > SHOWN ? `…${before.slice(-SHOWN)}` : before;
  return old === piece ? `${piece} again, after “${visible(end)}”` : `${piece} instead of ${old}, after “${visible(end)}”`;
}

/** @param {string} text */
const visible = (text) => text.replaceAll("\n", "⏎");
