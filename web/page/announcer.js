// Announcements for screen readers while text streams: one every few seconds.

import { element } from "./dom.js";

const PERIOD = 3000; // milliseconds between announcements

const region = element("announcer", HTMLElement);
let pending = "";
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Queues `text` for the next announcement. @param {string} text */
export function announce(text) {
  pending += text;
  timer ??= setTimeout(flush, PERIOD);
}

/** Announces `text` at once, in place of queued text. @param {string} text */
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
