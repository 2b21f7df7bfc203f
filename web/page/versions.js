// Several texts after one prompt, generated together; one of them is then continued.

import { appendStory, beginPart, beginStory, endStory } from "./story.js";
import { button, element, make } from "./dom.js";

/** @typedef {import("../gpt2.js").Stats} Stats */

const text = element("text", HTMLElement);

/** The texts on the page, one below the other. */
export class Versions {
  /** @type {Text[]} the nodes of the texts */
  #nodes;

  /** Clears the page for them. @param {string} prompt @param {number} count @param {string} heading */
  constructor(prompt, count, heading) {
    beginStory(prompt);
    beginPart(heading);
    this.#nodes = Array.from({ length: count }, () => document.createTextNode(""));
    for (const node of this.#nodes) text.append("\n", make("span", "version", node));
  }

  /** @param {number} row @param {string} piece */
  append(row, piece) {
    this.#nodes[row].appendData(piece);
    appendStory(""); // the scroll follows
  }

  /** Ends them; each can be chosen. @param {(row: number, text: string) => void} onChoose */
  end(onChoose) {
    endStory();
    this.#nodes.forEach((node, row) => {
      const label = `Continue with text ${row + 1}`;
      node.parentElement?.after(button("Continue with this text", () => onChoose(row, node.data), label));
    });
  }
}

/** Whether the page shows several texts. */
export const severalShown = () => text.querySelector(".version") !== null;

/** Shows one text, after the prompt. @param {string} written @param {string} heading */
export function showVersion(written, heading) {
  beginPart(heading);
  appendStory(written);
  endStory();
}

/**
 * The statistics of several texts as those of one: speed and tokens of all together.
 * @param {Stats[] | null} rows a text that has not begun has none
 * @returns {Stats | null}
 */
export function together(rows) {
  const all = (rows ?? []).filter(Boolean);
  if (!all.length) return null;
  /** @param {(stats: Stats) => number | null} of */
  const sum = (of) => all.reduce((total, stats) => total + (of(stats) ?? 0), 0);
  const waits = all.flatMap(({ secondsToFirstToken }) => secondsToFirstToken ?? []);
  const reasons = new Set(all.map(({ finishReason }) => finishReason));
  return {
    ...all[0],
    tokens: sum(({ tokens }) => tokens),
    tokensPerSecond: sum(({ tokensPerSecond }) => tokensPerSecond) || null,
    secondsToFirstToken: waits.length ? Math.min(...waits) : null,
    finishReason: reasons.size === 1 ? all[0].finishReason : null,
  };
}
