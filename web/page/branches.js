// Branches of the text: each alternative token that was chosen begins one, and the list goes back to any.

import { button, element, make } from "./dom.js";

/**
 * @typedef {object} Branch
 * @property {string} name where it left the text before it, and with which token
 * @property {import("./draft.js").State | null} state how it was when it was left
 * @property {import("./draft.js").State | null} link how it is in the link that it came with
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

  /** Shows the branches of a link. @param {Branch[]} all @param {Branch} current */
  show(all, current) {
    this.#draw(all.slice(0, MOST), current);
  }

  /** Those whose session is closed, go; those of a link are as they came. @param {Branch} current */
  drop(current) {
    const left = this.#all.filter(({ link }) => link);
    for (const branch of left) branch.state = branch.link;
    this.#draw(left, current);
  }

  /** All of them for a link, each as it was left. @param {Branch} current @returns {{others: import("./share.js").Linked[], place: number}} */
  toLink(current) {
    const others = this.#all.flatMap(({ name, state }) => (state && state.branch !== current ? [linkedOf(state, name)] : []));
    return { others, place: Math.max(0, this.#all.indexOf(current)) };
  }

  /** Adds a branch of `origin`, and gives it. @param {Branch} origin @param {string} name */
  add(origin, name) {
    const made = { name, state: null, link: null };
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
    box.hidden = all.length < 2;
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
export const firstBranch = () => ({ name: FIRST, state: null, link: null });

/** A text for a link. @param {Pick<import("./draft.js").State, "text" | "ids" | "linked">} state @param {string} name of its branch @returns {import("./share.js").Linked} */
export function linkedOf({ text, ids, linked }, name) {
  return linked ?? { text, ids, branch: name === FIRST ? "" : name };
}

/** The name of a branch. @param {string} before the text before it @param {string} old @param {string} piece */
export function branchName(before, old, piece) {
  const end = before.length > SHOWN ? `…${before.slice(-SHOWN)}` : before;
  return old === piece ? `${piece} again, after “${visible(end)}”` : `${piece} instead of ${old}, after “${visible(end)}”`;
}

/** @param {string} text */
const visible = (text) => text.replaceAll("\n", "⏎");
