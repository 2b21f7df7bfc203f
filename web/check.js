/** The check for WebGPU, made before any download: is it usable, and if not, why and what to do. */

import { errorOf } from "./rpc.js";

/** @typedef {import("./gpt2.js").Check} Check */

const FAILURES = {
  insecure: {
    reason: "This page was not loaded securely, so the browser hides the GPU from it.",
    remedy: "Open it with https, or on localhost.",
  },
  "no-webgpu": {
    reason: "This browser has no WebGPU.",
    remedy:
      "Use a current Chrome, Edge, Firefox or Safari (26 or newer). Where it is turned off, turn on chrome://flags/#enable-unsafe-webgpu (Chrome), dom.webgpu.enabled in about:config (Firefox), or WebGPU in the settings' Feature Flags (Safari).",
  },
  "no-adapter": {
    reason: "This browser has WebGPU, but offers no graphics adapter.",
    remedy:
      "Turn on graphics acceleration in the browser's settings and update the graphics driver; chrome://gpu (in Firefox about:support) lists what is blocked.",
  },
};

/** @param {keyof typeof FAILURES} code @returns {Check} */
const failed = (code) => ({ ok: false, code, ...FAILURES[code], warnings: [] });

/** @returns {Promise<Check>} */
export async function check() {
  if (!self.isSecureContext) return failed("insecure");
  if (!navigator.gpu) return failed("no-webgpu");
  const adapter = await navigator.gpu
    .requestAdapter({ powerPreference: "high-performance" })
    .catch(() => null);
  if (!adapter) return failed("no-adapter");
  const { vendor, architecture, device, description } = adapter.info;
  const software = isSoftware(adapter.info);
  const name = description || device || [vendor, architecture].filter(Boolean).join(" ") || "unknown adapter";
  const warnings = [];
  if (software) {
    warnings.push(
      `No GPU is used: ${name} runs on the CPU, which is slow. If this machine has a GPU, turn on graphics acceleration in the browser's settings.`,
    );
  }
  if (!navigator.storage?.getDirectory) {
    warnings.push("This browser stores no files for this page, so a model is downloaded on each visit.");
  }
  return { ok: true, adapter: { name, vendor, architecture, software, backend: "WebGPU" }, warnings };
}

/** @param {any} info */
function isSoftware({ vendor, architecture, device, description, isFallbackAdapter }) {
  const text = `${vendor} ${architecture} ${device} ${description}`.toLowerCase();
  return isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|basic render|warp/.test(text);
}

/** What loading throws where `check` says no. @param {Check} found */
export function noAdapter({ reason, remedy }) {
  return errorOf({ name: "NoAdapterError", message: `${reason} ${remedy}` });
}
