// The contract of web/worker.js without Python or GPU, for the real web/gpt2.js: served in its place.

import { aborted, serve } from "./rpc.js";

const FILES = [{ name: "config.json", bytes: 470 }];
/** @type {import("../../../web/gpt2.js").Memory} */
const MEMORY = {
  numTensors: 0,
  numBuffers: 0,
  numBytes: 0,
  numBytesInGpu: 0,
  numBytesAllocatedInGpu: 0,
  peakBytes: 0,
  numScopes: 0,
  byKind: { weights: 0, parameters: 0, cache: 0, workspace: 0, staging: 0 },
};
const DEFAULTS = { temperature: 0.8, topK: 40, topP: 0.95, maxTokens: 128, repetitionPenalty: 1.1, seed: null };
let next = 1;

serve({
  check: () => ({ ok: true, adapter: { name: "Fake GPU", software: false }, warnings: [] }),
  size: () => ({ bytes: 470, files: FILES, cached: false }),
  offered: () => [],
  list: () => [],
  load: (_, [source]) => {
    const info = { model: source, dtype: "float16", parameters: 1, contextLength: 512, vocabularySize: 4096 };
    return { model: next++, info: { ...info, adapter: {}, warnings: [], defaults: DEFAULTS }, saved: false };
  },
  memory: () => MEMORY,
  stream: () => ({ promptTokens: 1, tokens: 0, finishReason: "length" }),
  async python({ signal }, model, code) {
    while (code === "while True: pass");
    await new Promise((_, fail) => signal.addEventListener("abort", () => fail(aborted())));
  },
  dispose: () => {},
});
