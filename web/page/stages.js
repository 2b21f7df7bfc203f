// The stage bar: Python → package → adapter → weights → shaders, each with bytes and seconds.

import { announceNow } from "./announcer.js";
import { element, within } from "./dom.js";
import { part, sentence, size, time } from "./format.js";
import { paced } from "./pace.js";

/** @typedef {import("../gpt2.js").Progress} Progress */

const list = element("stages", HTMLOListElement);
/** @type {Map<string, Progress>} what is known of each stage */
const known = new Map();
/** @type {Set<string>} the stages of which something new is known */
const fresh = new Set();

const draw = paced(100, drawFresh);

/** @param {Progress} progress */
export function showStage(progress) {
  const before = known.get(progress.stage);
  known.set(progress.stage, { ...before, ...progress }); // an ending need not repeat the bytes
  fresh.add(progress.stage);
  if (progress.warning) element("model-message", HTMLElement).textContent = sentence(progress.warning);
  draw();
  if (progress.state === "start") announceNow(`Loading: ${progress.stage}`);
}

/** Back to the beginning, for the next load. */
export function clearStages() {
  known.clear();
  fresh.clear();
  for (const item of list.querySelectorAll("li")) {
    delete item.dataset.state;
    within(item, "span", HTMLElement).textContent = "\u00a0";
    within(item, "progress", HTMLProgressElement).value = 0;
  }
}

/** Marks unfinished stages as stopped. */
export function stopStages() {
  drawFresh();
  for (const item of list.querySelectorAll("li")) {
    if (item.dataset.state && item.dataset.state !== "done") item.dataset.state = "stopped";
  }
}

function drawFresh() {
  for (const stage of fresh) {
    const progress = known.get(stage);
    if (progress) drawStage(progress);
  }
  fresh.clear();
}

/** @param {Progress} progress */
function drawStage(progress) {
  const item = list.querySelector(`[data-stage="${progress.stage}"]`);
  if (!(item instanceof HTMLElement)) return;
  item.dataset.state = progress.state;
  within(item, "span", HTMLElement).textContent = detail(progress);
  const bar = within(item, "progress", HTMLProgressElement);
  const { bytes = 0, total = 0 } = progress;
  if (progress.state === "done") bar.value = 1;
  else if (total > 0) bar.value = bytes / total;
}

/** @param {Progress} progress @returns {string} */
function detail({ state, phase, bytes = 0, total = 0, seconds, bytesPerSecond = 0, cached }) {
  const words = [];
  if (phase && phase !== "download" && state !== "done") {
    words.push(phase === "verify" ? "checking hashes" : "to the GPU", part(bytes, total));
  } else if (state === "done") {
    if (bytes > 0) words.push(size(total || bytes));
    words.push(time(seconds));
    if (cached) words.push("local");
  } else {
    if (total > 0) words.push(part(bytes, total));
    if (bytesPerSecond > 0) words.push(`${size(bytesPerSecond)}/s`);
    if (words.length === 0) words.push("…");
  }
  return words.join(" · ");
}
