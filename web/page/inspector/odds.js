// Probabilities of the tokens of a text: a tint for each; of one token the most likely ones of its place
// as bars; and a table of all.

import { element, make } from "../dom.js";
import { replaceStory } from "../story.js";

/**
 * @typedef {import("../../gpt2.js").Details} Details
 * @typedef {object} Entry a token of the text
 * @property {HTMLElement} node
 * @property {number} id
 * @property {string} piece
 * @property {number} logprob
 * @property {number} rank
 * @property {number} entropy
 * @property {Details["top"][number]} top
 */

const ALTERNATIVES = 20;
const TINTS = [0.5, 0.1, 0.01, 0.001]; // probabilities below which a token has a stronger tint
const HINT = "Point at a token of the text, or move through it with ← and →.";
const LEAST = Math.log(1e-4); // log-probability of a bar without length: bars are on a log scale

const box = element("odds", HTMLInputElement);
const panel = element("odds-panel", HTMLElement);
const line = element("odds-line", HTMLElement);
const bars = element("odds-bars", HTMLElement);
const all = element("odds-all", HTMLDetailsElement);
const rows = element("odds-rows", HTMLTableSectionElement);
const view = element("story", HTMLElement);

/** @type {Entry[]} the tokens of the text that have probabilities */
let entries = [];
let current = -1;

/** Connects checkbox, pointer and keys. */
export function startOdds() {
  box.addEventListener("change", drawPanel);
  box.form?.addEventListener("reset", () => setTimeout(drawPanel));
  for (const name of ["pointerover", "click"]) {
    view.addEventListener(name, ({ target }) => select(entries.findIndex(({ node }) => node === target)));
  }
  view.addEventListener("keydown", (event) => {
    const last = entries.length - 1;
    const next = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: last }[event.key];
    if (next === undefined || last < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    select(Math.min(last, Math.max(0, next)));
    entries[current].node.scrollIntoView({ block: "nearest" });
  });
  all.addEventListener("toggle", drawTable);
}

/** Options of a text whose probabilities will be shown. @returns {{details?: true, topLogprobs?: number}} */
export function oddsOptions() {
  return box.checked ? { details: true, topLogprobs: ALTERNATIVES } : {};
}

/**
 * Shows the tokens of the part that has ended; those of parts that are gone, go. null: the part has none.
 * @param {Details | null} found
 */
export function showOdds(found) {
  const added = found ? entriesOf(found) : [];
  if (found) replaceStory(added.map(({ node }) => node));
  draw([...entries.filter(({ node }) => node.isConnected), ...added]);
}

/** What is shown now, as a function that shows it again, in the text of that time. */
export function keepOdds() {
  const [before, index] = [entries, current];
  return () => {
    draw(before);
    select(index);
  };
}

/** Shows these entries, none of them selected. @param {Entry[]} found */
function draw(found) {
  entries[current]?.node.classList.remove("current");
  entries = found;
  current = -1;
  line.textContent = found.length ? HINT : "";
  bars.replaceChildren();
  drawPanel();
  drawTable();
}

function drawPanel() {
  panel.hidden = !box.checked && !entries.length;
}

/** The tokens as far as the text goes, which a stop text or a stop token ends earlier. @param {Details} found @returns {Entry[]} */
function entriesOf({ text, tokenIds, pieces, logprobs, ranks, entropies, top }) {
  let left = text.length;
  return pieces.map((piece, i) => {
    const shown = piece.slice(0, left);
    left -= shown.length;
    const strength = TINTS.filter((bound) => Math.exp(logprobs[i]) < bound).length;
    const node = make("span", `tint-${strength}`, shown);
    return { node, id: tokenIds[i], piece, logprob: logprobs[i], rank: ranks[i] + 1, entropy: entropies[i], top: top[i] };
  });
}

/** @param {number} index */
function select(index) {
  if (index < 0 || index === current) return;
  entries[current]?.node.classList.remove("current");
  current = index;
  const { node, id, piece, logprob, rank, entropy, top } = entries[index];
  node.classList.add("current");
  line.textContent = `${named(piece)} ${percent(logprob)}, rank ${rank}; entropy of the place ${bits(entropy)}`;
  bars.replaceChildren(...top.map((other) => bar(other.piece, other.logprob, other.id === id)));
}

/** A row of a token: text, probability and, for the eye, a bar. @param {string} piece @param {number} logprob @param {boolean} drawn */
function bar(piece, logprob, drawn) {
  const filled = make("span", "filled");
  filled.style.width = `${(100 * Math.max(0, 1 - logprob / LEAST)).toFixed(1)}%`;
  const scale = make("td", "scale", filled);
  const name = make("th", "", named(piece), drawn ? " (chosen)" : "");
  name.scope = "row";
  return make("tr", drawn ? "drawn" : "", name, make("td", "", percent(logprob)), scale);
}

/** All tokens as a table, made when it is opened. */
function drawTable() {
  if (!all.open) return rows.replaceChildren();
  rows.replaceChildren(
    ...entries.map(({ piece, logprob, rank, entropy }) => {
      const name = make("th", "", named(piece));
      name.scope = "row";
      const cells = [percent(logprob), String(rank), bits(entropy)];
      return make("tr", "", name, ...cells.map((cell) => make("td", "", cell)));
    }),
  );
}

/** A token's text in quotes, with visible line ends. @param {string} piece */
export const named = (piece) => `“${piece.replaceAll("\n", "⏎")}”`;

/** @param {number} nats */
const bits = (nats) => `${(nats / Math.LN2).toFixed(1)} bits`;

/** @param {number} logprob */
export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return `${share >= 10 ? share.toFixed(0) : share >= 0.01 ? share.toPrecision(2) : "<0.01"} %`;
}
