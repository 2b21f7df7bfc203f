// The read-outs beneath a text: speed, first token, tokens, why it ended.

import { element } from "./dom.js";
import { time } from "./format.js";
import { paced } from "./pace.js";

/** @typedef {import("../gpt2.js").Stats} Stats */

const speed = element("figure-speed", HTMLElement);
const first = element("figure-first", HTMLElement);
const tokens = element("figure-tokens", HTMLElement);
const ended = element("figure-ended", HTMLElement);

/** @type {Record<string, string>} finishReason → words */
const REASONS = {
  stop: "end of text",
  stop_text: "stop text",
  length: "max tokens or context",
  closed: "you",
  cancelled: "you",
};

/**
 * Figures change a few times a second, and rest while nobody sees them; a reason is the last word.
 * @type {(stats: Stats | null, reason?: string | null) => void}
 */
export const showFigures = paced(250, (stats, reason = null) => {
  if (document.hidden && !reason) return;
  const rate = stats?.tokensPerSecond;
  const wait = stats?.secondsToFirstToken;
  speed.textContent = rate ? `${rate.toFixed(1)} tokens/s` : "–";
  first.textContent = wait ? time(wait) : "–";
  tokens.textContent = stats ? `${stats.promptTokens} + ${stats.tokens}` : "–";
  ended.textContent = reason ? (REASONS[reason] ?? reason) : "–";
});
