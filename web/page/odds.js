// Probabilities of the tokens of a text: a tint for each, and the numbers of one in a line below.

import { element, make } from "./dom.js";
import { replaceStory } from "./story.js";

/** @typedef {import("../gpt2.js").Details} Details */

const ALTERNATIVES = 5;
const TINTS = [0.5, 0.2, 0.05, 0.01]; // probabilities below which a token has a stronger tint
const HINT = "Point at a token of the text, or move through it with ← and →.";

const box = element("odds", HTMLInputElement);
const line = element("odds-line", HTMLElement);
const view = element("story", HTMLElement);

/** @type {HTMLElement[]} the tokens of the text that is shown */
let tokens = [];
/** @type {Details | null} */
let details = null;
let current = -1;

/** Connects checkbox, pointer and keys. */
export function startOdds() {
  const draw = () => {
    line.hidden = !box.checked && !details;
  };
  box.addEventListener("change", draw);
  box.form?.addEventListener("reset", () => setTimeout(draw));
  view.addEventListener("pointerover", ({ target }) => select(tokens.indexOf(/** @type {any} */ (target))));
  view.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !tokens.length) return;
    event.preventDefault();
    select(Math.min(tokens.length - 1, Math.max(0, current + step)));
    tokens[current].scrollIntoView({ block: "nearest" });
  });
}

/** Options of a text whose probabilities will be shown. @returns {{details?: true, topLogprobs?: number}} */
export function oddsOptions() {
  return box.checked ? { details: true, topLogprobs: ALTERNATIVES } : {};
}

/** Shows the tokens of the text; null: of none. @param {Details | null} found */
export function showOdds(found) {
  details = found;
  current = -1;
  line.hidden = !box.checked && !found;
  line.textContent = found ? HINT : "";
  tokens = found ? spans(found) : [];
  if (found) replaceStory(tokens);
}

/** What is shown now, as a function that shows it again, in the text of that time. */
export function keepOdds() {
  const before = { details, tokens, current, words: line.textContent, hidden: line.hidden };
  return () => {
    ({ details, tokens, current } = before);
    line.textContent = before.words;
    line.hidden = before.hidden;
  };
}

/** The tokens as far as the text goes, which a stop text or a stop token ends earlier. @param {Details} found */
function spans({ text, pieces, logprobs }) {
  let left = text.length;
  return pieces.map((piece, i) => {
    const shown = piece.slice(0, left);
    left -= shown.length;
    return make("span", `tint-${tint(logprobs[i])}`, shown);
  });
}

/** @param {number} logprob */
const tint = (logprob) => TINTS.filter((bound) => Math.exp(logprob) < bound).length;

/** @param {number} index */
function select(index) {
  if (!details || index < 0 || index === current) return;
  tokens[current]?.classList.remove("current");
  current = index;
  tokens[index].classList.add("current");
  const others = details.top[index].filter(({ id }) => id !== details?.tokenIds[index]);
  const also = others.map(({ piece, logprob }) => `${named(piece)} ${percent(logprob)}`).join(", ");
  line.textContent = `${named(details.pieces[index])} ${percent(details.logprobs[index])}. Others: ${also}`;
}

/** A token's text in quotes, with visible line ends. @param {string} piece */
export const named = (piece) => `“${piece.replaceAll("\n", "⏎")}”`;

/** @param {number} logprob */
export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return `${share >= 10 ? share.toFixed(0) : share >= 0.01 ? share.toPrecision(2) : "<0.01"} %`;
}
