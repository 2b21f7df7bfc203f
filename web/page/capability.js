// The first step of the page: the check for WebGPU, with reason and remedy if it fails.

import { check } from "../gpt2.js";
import { element } from "./dom.js";

let name = ""; // of the adapter

/** Shows the adapter, and in which format its model is. @param {import("../gpt2.js").GPT2 | null} lm */
export function showAdapter(lm) {
  if (lm) name = nameOf(lm.info.adapter);
  element("adapter", HTMLElement).textContent = lm ? `${name} · ${lm.info.dtype}` : name;
}

/**
 * Shows the result of the library's check; resolves to whether a model can be loaded.
 * @returns {Promise<boolean>}
 */
export async function showCapability() {
  const line = element("adapter", HTMLElement);
  /** @type {import("../gpt2.js").Check} */
  const found = await check().catch((error) => ({
    ok: false,
    reason: "The check for WebGPU failed.",
    remedy: String(error.message),
    warnings: [],
  }));
  if (found.ok && found.adapter) {
    const { adapter, warnings } = found;
    name = nameOf(adapter);
    line.textContent = name;
    line.dataset.state = adapter.software ? "slow" : "good";
    element("model-message", HTMLElement).textContent = warnings.join(" ");
    return true;
  }
  line.textContent = "No usable GPU";
  line.dataset.state = "bad";
  element("candidate", HTMLElement).hidden = true;
  element("obstacle-reason", HTMLElement).textContent = found.reason ?? "WebGPU cannot be used.";
  element("obstacle-remedy", HTMLElement).textContent = found.remedy ?? "";
  element("obstacle", HTMLElement).hidden = false;
  return false;
}

/**
 * @param {{name?: string, vendor?: string, architecture?: string, software?: boolean}} adapter
 * @returns {string}
 */
function nameOf(adapter) {
  const name = adapter.name || [adapter.vendor, adapter.architecture].filter(Boolean).join(" ");
  return `${name || "GPU"}${adapter.software ? " · software" : ""}`;
}
