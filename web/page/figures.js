// The statistics below a text: speed, time to first token, token counts, stop reason.

import { element } from "./dom.js";
import { time } from "./format.js";
import { paced } from "./pace.js";

/** @typedef {import("../gpt2.js").Stats} Stats */

const speed = element("figure-speed", HTMLElement);
const first = element("figure-first", HTMLElement);
const tokens = element("figure-tokens", HTMLElement);
const ended = element("figure-ended", HTMLElement);

/** @type {Record<string, string>} finishReason, or "error", → words */
const REASONS = {
  stop: "end of text",
  stop_text: "stop text",
  length: "max tokens",
  context: "context full",
  time_limit: "time limit",
  aborted: "stopped",
  several: "differs by text",
  error: "error",
};

/**
 * Updates a few times a second while the page is visible; a reason is shown at once and ends a text.
 * @type {(stats: Stats | null, reason?: string | null) => void}
 */
export const showFigures = paced(250, (stats, reason = null) => {
  if (document.hidden && !reason) return;
  const rate = stats?.tokensPerSecond;
  const wait = stats?.secondsToFirstToken;
  speed.textContent = rate ? `${rate.toFixed(1)} tokens/s` : "–";
  first.textContent = wait ? time(wait) : "–";
  tokens.textContent = stats ? `${stats.promptTokens} prompt + ${stats.tokens} generated` : "–";
  ended.textContent = reason ? (REASONS[reason] ?? reason) : "–";
});
