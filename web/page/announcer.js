// What a screen reader hears while text streams: whole words, every few seconds, never a flood.

import { element } from "./dom.js";

const PERIOD = 3000; // milliseconds between announcements

const region = element("announcer", HTMLElement);
let pending = "";
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Says `text` soon, after what waits. @param {string} text */
export function announce(text) {
  pending += text;
  timer ??= setTimeout(flush, PERIOD);
}

/** Says `text` instead of whatever still waits: an ending, an error. @param {string} text */
export function announceNow(text) {
  clearTimeout(timer);
  pending = text;
  flush();
}

function flush() {
  region.textContent = pending;
  pending = "";
  timer = undefined;
}
