// Attention of one layer: a thumbnail of each head, the matrix of one, and the text tinted by one row.

import { button, element } from "../dom.js";
import { named, percent, shownText } from "./odds.js";
import { rove, stopAt } from "./roving.js";

/** @typedef {import("../../gpt2.js").Inspection} Inspection */

const MOST = 64; // tokens at the end of the text that are shown
const NAMED = 5;

const heads = element("heads", HTMLElement);
const matrix = element("pattern", HTMLCanvasElement);
const tokens = element("attention-tokens", HTMLElement);
const line = element("attention-line", HTMLElement);

export class AttentionView {
  /** @type {Float32Array} weights [head, query, key] */
  #patterns = new Float32Array();
  #length = 0;
  /** @type {string[]} */
  #texts = [];
  #head = 0;
  #query = 0;
  /** @type {HTMLButtonElement[]} of the tokens that are shown */
  #tokens = [];

  constructor() {
    rove(heads);
    rove(tokens);
  }

  /** @param {Inspection} found with the attention of one layer */
  show({ texts, attention }) {
    if (!attention) return;
    this.#patterns = attention.patterns;
    this.#length = attention.length;
    this.#texts = texts.map((text, i) => (i === 0 && text === "" ? "start" : text));
    this.#query = this.#length - 1;
    this.#head = Math.min(this.#head, attention.heads - 1);
    heads.replaceChildren(...Array.from({ length: attention.heads }, (_, head) => this.#thumbnail(head)));
    this.#tokens = this.#texts.slice(this.#first).map((text, i) => {
      const query = this.#first + i;
      return button(shownText(text), () => this.#choose(this.#head, query), `${shownText(text)}, token ${query}`);
    });
    tokens.replaceChildren(...this.#tokens);
    stopAt(heads, this.#head);
    stopAt(tokens, this.#tokens.length - 1);
    this.#choose(this.#head, this.#query);
  }

  get #first() {
    return Math.max(0, this.#length - MOST);
  }

  /** @param {number} head */
  #thumbnail(head) {
    const made = button("", () => this.#choose(head, this.#query), `Head ${head}`);
    const canvas = document.createElement("canvas");
    this.#paint(canvas, head);
    made.append(canvas, String(head));
    return made;
  }

  /** @param {number} head @param {number} query */
  #choose(head, query) {
    [this.#head, this.#query] = [head, query];
    [...heads.children].forEach((each, i) => each.setAttribute("aria-pressed", String(i === head)));
    this.#paint(matrix, head);
    const begin = (head * this.#length + query) * this.#length;
    const row = this.#patterns.subarray(begin, begin + this.#length);
    this.#tokens.forEach((each, i) => {
      const key = this.#first + i;
      each.setAttribute("aria-pressed", String(key === query));
      each.style.setProperty("--share", row[key].toFixed(3));
    });
    const keys = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, NAMED);
    const parts = keys.filter((key) => row[key] >= 0.0005).map((key) => `${named(this.#texts[key])} ${percent(Math.log(row[key]))}`);
    line.textContent = `Head ${head}, ${named(this.#texts[query])}: ${parts.join(", ")}`;
  }

  /** One pixel for each pair of tokens, darker for more weight. @param {HTMLCanvasElement} canvas @param {number} head */
  #paint(canvas, head) {
    const size = this.#length - this.#first;
    canvas.width = canvas.height = size;
    const context = canvas.getContext("2d");
    if (!context) return;
    const image = context.createImageData(size, size);
    for (let query = 0; query < size; query++) {
      const begin = (head * this.#length + this.#first + query) * this.#length + this.#first;
      for (let key = 0; key <= query; key++) {
        const alpha = 255 * Math.sqrt(this.#patterns[begin + key]);
        image.data.set([208, 138, 46, alpha], 4 * (query * size + key)); // --cache of ground.css
      }
    }
    context.putImageData(image, 0, 0);
  }
}
