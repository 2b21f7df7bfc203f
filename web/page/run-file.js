// "Save run": a file with what generates the text again, which `gpt2-wgpu replay` checks.

import { sentence } from "./format.js";

const NAME = "run.json";

/** Saves the run of a session, null if there is none; resolves to a message. @param {import("../gpt2.js").Session | null} session */
export async function saveRun(session) {
  if (!session) return "There is no generated text to save yet. Generate one first; of several texts, choose one.";
  try {
    const run = await session.savedRun();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(run)}\n`], { type: "application/json" }));
    link.download = NAME;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser reads it meanwhile
    return `Saved as ${NAME}: check it with gpt2-wgpu replay ${NAME}.`;
  } catch (error) {
    return sentence(/** @type {Error} */ (error).message);
  }
}
