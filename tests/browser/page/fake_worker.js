// The contract of web/worker.js without Python or GPU, for the real web/gpt2.js: served in its place.

import { DEFAULTS } from "./defaults.js"; // written by serving.py
import { aborted, errorOf, post, serve } from "./rpc.js";

const FILES = [{ name: "config.json", bytes: 470 }];
const ADAPTER = { name: "Fake GPU", vendor: "", architecture: "", software: false, backend: "WebGPU" };
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
/** @type {import("../../../web/gpt2.js").Details} */
const DETAILS = {
  text: " a",
  tokenIds: [1],
  pieces: [" a"],
  logprobs: [-0.5],
  ranks: [0],
  entropies: [1.5],
  top: [[{ id: 1, piece: " a", logprob: -0.5 }]],
  finishReason: "length",
  promptTokens: 1,
  seed: 1,
  score: null,
  timings: { secondsToFirstToken: 0.05, seconds: 0.1 },
};
const loaded = new Set();
let next = 1;

/** Numbers of tokens. @type {Map<number, number>} */
const sessions = new Map();

serve({
  check: () => ({ ok: true, adapter: ADAPTER, warnings: ["This is a fake."] }),
  size: () => ({ bytes: 470, files: FILES, cached: false }),
  offered: () => [{ source: "fairytales", name: "fairytales", bytes: 470 }],
  list: () => [],
  async load({ signal }, source) {
    if (source === "no/such") throw errorOf({ name: "PresetError", message: "no/such is not on the Hub: 404" });
    await new Promise((resolve) => setTimeout(resolve, 1)); // a cancel may come
    signal.throwIfAborted();
    loaded.add(next);
    const info = { model: source, dtype: "float16", parameters: 1, contextLength: 512, vocabularySize: 4096 };
    const rest = { adapter: ADAPTER, storedBytes: 470, stored: false, warnings: [], stop: [], timeLimit: null, defaults: DEFAULTS };
    return { model: next++, info: { ...info, ...rest }, saved: false };
  },
  memory: () => MEMORY,
  session: () => (sessions.set(next, 1), next++),
  tokenIds: (_, model, session) => Array(sessions.get(session)).fill(1),
  rewind: (_, model, session, tokens) => void sessions.set(session, (sessions.get(session) ?? 0) - tokens),
  text: () => "Once",
  closeSession: (_, model, session) => void sessions.delete(session),
  continue: (context, model, session, options) => stream(context, model, "", options),
  stream,
  async python({ signal }, model, code) {
    while (code === "while True: pass");
    if (code !== "await forever") return { output: "1\n", result: null };
    await new Promise((_, fail) => signal.addEventListener("abort", () => fail(aborted())));
  },
  dispose: (_, model) => (loaded.delete(model) ? MEMORY : null),
});

const TOKEN = { id: 1, text: " a", offset: 0, logprob: -1, rank: 0, entropy: 1, top: [{ id: 1, piece: " a", logprob: -1 }] };

async function stream({ signal, emit }, model, prompt, { maxTokens, seed = 1, details = false, tokens = false }) {
  const stats = { promptTokens: 1, tokens: 0, tokensPerSecond: null, secondsToFirstToken: 0.05, seed };
  for (; stats.tokens < maxTokens && !signal.aborted; await new Promise((resolve) => setTimeout(resolve, 1))) {
    stats.tokens += 1;
    if (stats.tokens > 2) Object.assign(stats, { tokensPerSecond: 12.5 });
    emit({ ...(tokens ? { text: "", tokens: [TOKEN] } : { text: " a" }), stats: { ...stats, finishReason: null } });
  }
  const ended = { ...stats, finishReason: signal.aborted ? "aborted" : "length" };
  emit({ text: "", stats: ended });
  post("memory", { model, ...MEMORY });
  if (signal.aborted) throw aborted();
  return { stats: ended, details: details ? DETAILS : null };
}
