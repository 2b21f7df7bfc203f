// The sampling form: values as number and slider, and their defaults.

import { element, within } from "./dom.js";

/**
 * @typedef {(keyof import("../gpt2.js").Info["defaults"] & string) | "numReturnSequences" | "timeLimit"} Name
 * @typedef {Record<Name, number>} Values
 */

const form = element("settings", HTMLFormElement);
const newSeed = element("newSeed", HTMLInputElement);
const stops = element("stop", HTMLTextAreaElement);
/** @type {NodeListOf<HTMLInputElement>} */
const numbers = form.querySelectorAll("input[type=number]");
const fields = new Map(Array.from(numbers, (number) => [/** @type {Name} */ (number.id), number]));

/** The form's parameters; index.html has a field for each. */
export const NAMES = [...fields.keys()];

/** @param {Name} name */
function field(name) {
  return /** @type {HTMLInputElement} */ (fields.get(name));
}

/** Connects sliders and numbers. @param {() => void} onEnter called when Enter is pressed in a number */
export function startSettings(onEnter) {
  form.addEventListener("keydown", ({ key, repeat, target }) => {
    if (key === "Enter" && !repeat && target instanceof HTMLInputElement) onEnter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    if (!(target instanceof HTMLInputElement)) return;
    const name = /** @type {Name | undefined} */ (target.dataset.for);
    if (name) field(name).value = target.value;
    else if (target === field("seed")) newSeed.checked = false; // a typed seed is kept
    else follow(target);
  });
  form.addEventListener("reset", () => setTimeout(() => fields.forEach(follow)));
  field("seed").defaultValue = String(drawSeed());
}

/** The slider goes where the number is. @param {HTMLInputElement} number */
function follow(number) {
  const slider = form.querySelector(`[data-for="${number.id}"]`);
  if (slider instanceof HTMLInputElement) slider.value = number.value;
}

/**
 * The form's values, with a new seed if wanted; null when a value is out of range (the browser then
 * reports it).
 * @returns {Values | null}
 */
export function readSettings() {
  if (!form.reportValidity()) return null;
  if (newSeed.checked) field("seed").value = String(drawSeed());
  return currentSettings();
}

/** Special tokens that the prompt may spell out. @returns {{allowedSpecial?: "all"}} */
export function specialTokens() {
  return element("specialTokens", HTMLInputElement).checked ? { allowedSpecial: "all" } : {};
}

/** What ends a text besides its tokens. An empty field of stop texts and 0 seconds are none, also of a model that has some. */
export function ends() {
  const lines = stops.value.split("\n").filter(Boolean);
  const stop = lines.map((line) => line.replace(/\\([n\\])/g, (_, c) => (c === "n" ? "\n" : c)));
  return { stop, timeLimit: field("timeLimit").valueAsNumber || Infinity };
}

/** The stop texts for a link: an empty one says that those of the model are switched off. @returns {string[]} */
export function linkedStops() {
  const { stop } = ends();
  return stops.defaultValue && !stop.length ? [""] : stop;
}

/** @param {string[]} texts */
export function writeStops(texts) {
  stops.value = asLines(texts);
}

/** A text a line; its own line breaks are written as \n. @param {string[]} texts */
function asLines(texts) {
  return texts.map((text) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")).join("\n");
}

/** The form's current values. @returns {Values} */
export function currentSettings() {
  const entries = NAMES.map((name) => [name, field(name).valueAsNumber]);
  return /** @type {Values} */ (Object.fromEntries(entries));
}

/**
 * Shows given values; one that its field rejects is left out.
 * @param {Partial<Values>} values
 */
export function writeSettings(values) {
  for (const name of NAMES) {
    const value = values[name];
    if (value === undefined) continue;
    const before = field(name).value;
    field(name).value = String(value);
    if (!field(name).checkValidity()) field(name).value = before;
    else if (name === "seed") newSeed.checked = false;
    follow(field(name));
  }
}

/**
 * Takes bounds and defaults from a model.
 * @param {Pick<import("../gpt2.js").Info, "contextLength" | "vocabularySize" | "defaults" | "stop" | "timeLimit">} info
 */
export function fitSettings({ contextLength, vocabularySize, defaults, stop, timeLimit }) {
  stops.defaultValue = asLines(stop); // what was typed stays
  field("maxTokens").max = String(contextLength);
  field("topK").max = String(vocabularySize);
  for (const [name, value] of Object.entries({ ...defaults, timeLimit: timeLimit ?? 0 })) {
    const number = fields.get(/** @type {Name} */ (name));
    if (!number || value === null) continue; // not on the page; the seed, which is not of a model
    number.defaultValue = String(value); // what was typed stays, what was not follows
    within(number.parentElement ?? form, "data", HTMLElement).textContent = String(value);
    follow(number);
  }
  bound("maxTokens", contextLength);
}

/** A value above a new maximum comes down to it, and its slider ends there. @param {Name} name @param {number} most */
function bound(name, most) {
  within(form, `[data-for="${name}"]`, HTMLInputElement).max = String(most);
  if (field(name).valueAsNumber > most) field(name).value = String(most);
}

function drawSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
