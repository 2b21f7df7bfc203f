// Probabilities of the tokens of a text: a tint for each; of one token the most likely ones of its place
// as bars, before and after the sampler's filters as they are set now; and a table of all.

import { button, element, make, within } from "../dom.js";
import { currentSettings } from "../settings.js";
import { cutStory } from "../story.js";
import { filtered } from "./filters.js";

/**
 * @typedef {Omit<import("../../gpt2.js").StreamedToken, "offset">} Token
 * @typedef {object} Entry a token of the text
 * @property {HTMLElement} node
 * @property {number} at number of tokens before it, start token included
 * @property {number} id
 * @property {string} piece
 * @property {number} logprob
 * @property {number} rank
 * @property {number} entropy
 * @property {Token["top"]} top
 *
 * @typedef {Token["top"][number]} Alternative
 */

const ALTERNATIVES = 20;
const TINTS = [0.5, 0.1, 0.01, 0.001]; // probabilities below which a token has a stronger tint
const HINT = "Point at a token of the text, click it to keep it, or move through it with ← and →.";
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
let pinned = false; // the pointer, on its way to the alternatives, selects no other token
/** @type {(entry: Entry, alternative: Alternative) => void} */
let choose = () => {};

/**
 * Connects checkbox, pointer and keys.
 * @param {(entry: Entry, alternative: Alternative) => void} onChoose called with an alternative to a token
 */
export function startOdds(onChoose) {
  choose = onChoose;
  box.addEventListener("change", drawPanel);
  box.form?.addEventListener("reset", () => setTimeout(() => (drawPanel(), drawBars())));
  box.form?.addEventListener("input", () => setTimeout(drawBars)); // after a slider has set its number
  const indexOf = (/** @type {EventTarget | null} */ target) => entries.findIndex(({ node }) => node === target);
  view.addEventListener("pointerover", ({ target }) => void (pinned || select(indexOf(target))));
  view.addEventListener("click", ({ target }) => {
    pinned = indexOf(target) >= 0;
    select(indexOf(target));
  });
  view.addEventListener("keydown", (event) => {
    const last = entries.length - 1;
    const next = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: last }[event.key];
    if (next === undefined || last < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    pinned = true;
    select(Math.min(last, Math.max(0, next)));
    entries[current].node.scrollIntoView({ block: "nearest" });
  });
  all.addEventListener("toggle", drawTable);
}

/** Options of a text whose probabilities are shown. @returns {{tokens?: true, topLogprobs?: number}} */
export function oddsOptions() {
  return box.checked ? { tokens: true, topLogprobs: ALTERNATIVES } : {};
}

/** Shows the tokens that are in the text still. */
export function showOdds() {
  draw(entries.filter(({ node }) => node.isConnected));
}

/**
 * The node of the next token of the text, tinted; it can be selected from now on.
 * @param {Token} token @param {number} at number of tokens before it, start token included
 */
export function addOdds({ text, rank, ...token }, at) {
  const node = make("span", `tint-${tint(token.logprob)}`, text);
  entries.push({ ...token, node, at, piece: text, rank: rank + 1 });
  return node;
}

/** After the last token of a part: those without text at its end (a stop text or a stop token) go. */
export function endOdds() {
  while (entries.at(-1)?.node.textContent === "") entries.pop()?.node.remove();
  if (entries[current]) drawTable();
  else draw(entries);
}

/** What is shown now, as a function that shows it again, in the text of that time. */
export function keepOdds() {
  const [before, index] = [[...entries], current];
  return () => {
    draw(before);
    select(index);
  };
}

/**
 * Cuts the text before a token, and puts an alternative there.
 * @param {Entry} entry @param {Alternative} alternative @param {string} piece its text there
 */
export function forkOdds(entry, { id, logprob }, piece) {
  const rank = 1 + entry.top.findIndex((other) => other.id === id);
  const node = make("span", `tint-${tint(logprob)} forced`, piece);
  cutStory(entry.node, node);
  draw([...entries.slice(0, entries.indexOf(entry)), { ...entry, node, id, piece, logprob, rank }]);
}

/** Whether a node is one of the first tokens of the text, as many as are given. @param {number} count @returns {(node: Node) => boolean} */
export function isTokenBefore(count) {
  const nodes = new Set(entries.filter(({ at }) => at < count).map(({ node }) => /** @type {Node} */ (node)));
  return (node) => nodes.has(node);
}

/** Selects the token that has this many tokens before it. @param {number} at */
export function selectOdds(at) {
  pinned = true;
  select(entries.findIndex((entry) => entry.at === at));
}

/** Shows these entries, none of them selected. @param {Entry[]} found */
function draw(found) {
  entries[current]?.node.classList.remove("current");
  entries = [...found];
  current = -1;
  pinned = false;
  line.textContent = found.length ? HINT : "";
  bars.replaceChildren();
  drawPanel();
  drawTable();
}

function drawPanel() {
  panel.hidden = !box.checked && !entries.length;
}

/** @param {number} logprob */
const tint = (logprob) => TINTS.filter((bound) => Math.exp(logprob) < bound).length;

/** @param {number} index */
function select(index) {
  if (index < 0 || index === current) return;
  entries[current]?.node.classList.remove("current");
  current = index;
  const { node, piece, logprob, rank, entropy } = entries[index];
  node.classList.add("current");
  line.textContent = `${named(piece)} ${percent(logprob)}, rank ${rank}; entropy of the place ${bits(entropy)}`;
  drawBars();
}

/** The rows of the token that is selected; those that exist get new values. */
function drawBars() {
  const entry = entries[current];
  if (!entry) return;
  const { id, entropy, top } = entry;
  const { temperature, topK, topP, minP } = currentSettings();
  const settings = { temperature, topK, topP, minP };
  const isSet = Object.values(settings).every((value) => value >= 0); // NaN while a number is typed
  const { probabilities, cutBy, about } = filtered(top.map(({ logprob }) => logprob), entropy, settings);
  if (bars.dataset.at !== String(current) || bars.childElementCount !== top.length) {
    bars.replaceChildren(...top.map((other) => bar(entry, other, other.id === id)));
    bars.dataset.at = String(current);
  }
  [...bars.children].forEach((row, i) => {
    const logprob = isSet ? Math.log(probabilities[i]) : -Infinity;
    const text = cutBy[i] ? `cut: ${cutBy[i]}` : `${about ? "about " : ""}${percent(logprob)}`;
    within(row, ".after", HTMLElement).textContent = isSet ? text : "–";
    within(row, ".left", HTMLElement).style.width = width(logprob);
  });
}

/** @param {number} logprob */
const width = (logprob) => `${(100 * Math.max(0, 1 - logprob / LEAST)).toFixed(1)}%`;

/** A row of a token: a button with its text, probabilities and, for the eye, bars. @param {Entry} entry @param {Alternative} other @param {boolean} drawn */
function bar(entry, other, drawn) {
  const { piece, logprob } = other;
  const filled = make("span", "filled");
  filled.style.width = width(logprob);
  const scale = make("td", "scale", filled, make("span", "filled left"));
  const choice = button(named(piece), () => choose(entry, other), `Go on with ${named(piece)}`);
  choice.disabled = piece.includes("\ufffd"); // a part of a character
  const name = make("th", "", choice, drawn ? " (chosen)" : "");
  name.scope = "row";
  return make("tr", drawn ? "drawn" : "", name, make("td", "", percent(logprob)), make("td", "after"), scale);
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

/** A text with visible line ends. @param {string} text */
const visible = (text) => text.replaceAll("\n", "⏎");

/** A token's text in quotes. @param {string} piece */
export const named = (piece) => `“${visible(piece)}”`;

/** A token's text as a label of its own, which is never empty. @param {string} piece */
export const shownText = (piece) => visible(piece) || "·";

/** @param {number} nats */
const bits = (nats) => `${(nats / Math.LN2).toFixed(1)} bits`;

/** @param {number} logprob */
export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return `${share >= 10 ? share.toFixed(0) : share >= 0.01 ? share.toPrecision(2) : "<0.01"} %`;
}
