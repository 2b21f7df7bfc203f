// Generation as the page shows it: the next part of a text, or several texts after one prompt.

import { announceNow } from "./announcer.js";
import { complain } from "./complaint.js";
import { showFigures } from "./figures.js";
import { addOdds, endOdds, oddsOptions, showOdds } from "./inspector/odds.js";
import { ends } from "./settings.js";
import { dropStopText } from "./stop-text.js";
import { appendStory, beginPart, endStory } from "./story.js";
import { Versions, together } from "./versions.js";

/**
 * @typedef {object} Call
 * @property {import("../gpt2.js").GPT2} lm
 * @property {string} name of the model
 * @property {import("./settings.js").Values} settings
 * @property {AbortSignal} signal
 */

/**
 * Generates the next part of a draft; gives false if an error or a stop came before any of it.
 * @param {import("./draft.js").Draft} draft
 * @param {Call} call
 * @param {() => Promise<{passing: boolean} | void>} prepare makes the draft what the part follows; gives whether
 *     Undo passes over that
 */
export async function writePart(draft, { lm, name, settings, signal }, prepare) {
  const { numReturnSequences: _, ...options } = settings;
  showFigures(null);
  showOdds();
  /** @type {import("../gpt2.js").TextStream | import("../gpt2.js").TokenStream | null} */
  let stream = null;
  let problem = null;
  let written = "";
  try {
    const how = (await prepare()) ?? { passing: false };
    const { session } = draft;
    if (!session) return false;
    const state = await draft.state();
    const before = state.ids.length;
    draft.remember(state, how);
    draft.parts.push({ before, seed: options.seed });
    beginPart(draft.heading(name));
    stream = session.stream({ ...options, ...ends(), ...oddsOptions(), wait: true, signal });
    let at = before; // tokens before the next one
    for await (const found of /** @type {AsyncIterable<string | import("../gpt2.js").StreamedToken>} */ (stream)) {
      const piece = typeof found === "string" ? found : found.text;
      written += piece;
      appendStory(piece, typeof found === "string" ? null : addOdds(found, at++));
      showFigures(stream.stats);
    }
    if (stream.stats?.finishReason === "stop_text") await dropStopText(lm, session, before, written);
  } catch (error) {
    if (!signal.aborted) problem = error;
  }
  endStory();
  endOdds();
  const stats = stream?.stats ?? null;
  draft.full = stats?.finishReason === "context";
  conclude(stats, problem, signal, stats?.finishReason, "Text finished.");
  return written !== "" || !(problem || signal.aborted);
}

/**
 * Generates several texts after a prompt, together; gives false if an error or a stop came before any text.
 * @param {Call} call
 * @param {string} prompt @param {{allowedSpecial?: "all"}} special
 * @param {(text: string, seed: number) => void} onChoose called with the text that is to go on
 */
export async function writeSeveral({ lm, name, settings, signal }, prompt, special, onChoose) {
  const { numReturnSequences: count, seed } = settings;
  const versions = new Versions(prompt, count, `${name}, seeds ${seed} to ${seed + count - 1}`);
  showFigures(null);
  showOdds();
  const stream = lm.stream([prompt], { ...settings, ...ends(), ...special, wait: true, signal });
  let problem = null;
  let any = false;
  try {
    for await (const { row, text } of stream) {
      any = true;
      versions.append(row, text);
      showFigures(together(stream.stats));
    }
  } catch (error) {
    if (!signal.aborted) problem = error;
  }
  versions.end((row, text) => onChoose(text, stream.stats?.[row]?.seed ?? seed + row));
  const stats = together(stream.stats);
  conclude(stats, problem, signal, stats?.finishReason ?? "several", "Texts finished.");
  return any || !(problem || signal.aborted);
}

/**
 * Shows how a call ended.
 * @param {import("../gpt2.js").Stats | null} stats @param {unknown} problem @param {AbortSignal} signal
 * @param {string | null | undefined} reason why it ended by itself @param {string} finished
 */
function conclude(stats, problem, signal, reason, finished) {
  showFigures(stats, problem ? "error" : signal.aborted ? "aborted" : reason);
  if (problem) complain(problem);
  else announceNow(signal.aborted ? "Stopped." : finished);
}
