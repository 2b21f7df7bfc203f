// Logit lens: for each layer the most likely next token after each of some tokens.

import { button, element, make } from "../dom.js";
import { named, percent, shownText } from "./odds.js";
import { rove, stopAt } from "./roving.js";

/** @typedef {import("../../gpt2.js").Inspection} Inspection */

const table = element("lens", HTMLTableElement);
const line = element("lens-line", HTMLElement);

export class LensView {
  /** @type {HTMLButtonElement | null} */
  #chosen = null;

  constructor() {
    rove(table);
  }

  /** @param {Inspection} found with the lens */
  show({ texts, pieces, lens }) {
    if (!lens) return;
    const { layers, positions, count, ids, probabilities, ranks } = lens;
    const head = make("tr", "", make("td", ""));
    for (const position of positions) head.append(heading("col", texts[position] || "start"));
    const rows = layers.map((layer, n) => {
      const row = make("tr", "", heading("row", layer.replace("_pre", "").replace("final_post", "end")));
      positions.forEach((position, i) => {
        const place = n * positions.length + i;
        const top = Array.from({ length: count }, (_, k) => place * count + k);
        const parts = top.map((k) => `${named(pieces[ids[k]] ?? "")} ${percent(Math.log(probabilities[k]))}`);
        const next = texts[position + 1];
        const rank = ranks[place] < 0 ? "" : ` The next token ${named(next)} is number ${ranks[place] + 1}.`;
        const where = layer === "final_post" ? "At the end" : `Before block ${n}`;
        const cell = button(shownText(pieces[ids[place * count]] ?? ""), () => {
          this.#choose(cell, `${where}, after ${named(texts[position] || "start")}: ${parts.join(", ")}.${rank}`);
        });
        cell.style.setProperty("--share", probabilities[place * count].toFixed(3));
        row.append(make("td", "", cell));
      });
      return row;
    });
    table.replaceChildren(head, ...rows);
    stopAt(table, 0);
    line.textContent = "Choose a cell.";
    this.#chosen = null;
  }

  /** @param {HTMLButtonElement} cell @param {string} text */
  #choose(cell, text) {
    this.#chosen?.setAttribute("aria-pressed", "false");
    cell.setAttribute("aria-pressed", "true");
    this.#chosen = cell;
    line.textContent = text;
  }
}

/** @param {string} scope @param {string} text */
function heading(scope, text) {
  const made = make("th", "", shownText(text));
  made.setAttribute("scope", scope);
  return made;
}
