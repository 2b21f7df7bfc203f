// The contract of web/gpt2.js without worker, Python or GPU: the page's rare states, at once.
// Served in place of web/gpt2.js; what it does is set by `globalThis.fake`, before the page loads.

import { DEFAULTS } from "./defaults.js"; // written by serving.py

const WORDS = "there lived a king who had three daughters and the youngest was so kind".split(" ");
const FILES = [
  { name: "config.json", bytes: 470 },
  { name: "merges.txt", bytes: 29824 },
  { name: "vocab.json", bytes: 54234 },
  { name: "model.safetensors", bytes: 15006272 },
];
const STAGES = ["python", "package", "adapter", "weights", "shaders"];
const TOTAL = FILES.reduce((sum, { bytes }) => sum + bytes, 0);

const ADAPTER = { name: "Fake GPU", vendor: "", architecture: "", software: false, backend: "WebGPU" };

const fake = Object.assign(
  {
    check: { ok: true, adapter: ADAPTER, warnings: [] },
    stored: [], // what models.list() gives
    offline: true,
    storing: true, // models are kept
    warnings: [], // of a loaded model
    stop: [], // likewise
    timeLimit: null, // likewise
    holding: false, // weights stop half-way until the load is cancelled
    step: 1, // milliseconds between progress events
    pause: 2, // milliseconds between pieces of text
    failAt: null, // {stage, name, message}: the load fails there
    longest: Infinity, // characters of a prompt that is not rejected
    reason: null, // the finish reason of every text
    stopToken: false, // a stream of tokens ends with one that is not of the text
    piece: null, // every piece of text is this
    likely: null, // the second of the likely tokens of each place
    console: {}, // code → {output, result} or {error}
    calls: [], // what the page asked for
    running: 0, // texts in flight
    most: 0, // ... at most
  },
  globalThis.fake,
);
globalThis.fake = fake;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const named = (name, message) => Object.assign(new Error(message), { name });
const aborted = () => new DOMException("stopped by the caller", "AbortError");

export const check = async () => {
  if (fake.checkFails) throw new Error(fake.checkFails);
  return fake.check;
};

export const models = {
  async size(source) {
    fake.calls.push(["size", typeof source === "string" ? source : source.map((f) => f.name)]);
    if (typeof source !== "string") {
      const files = source.map(({ name, size }) => ({ name, bytes: size }));
      if (!files.some(({ name }) => name === "config.json")) {
        throw named("PresetError", "the folder has no config.json: it is no model");
      }
      return { bytes: files.reduce((sum, { bytes }) => sum + bytes, 0), files, cached: false };
    }
    if (source === "no/such") throw named("PresetError", "no/such is not on the Hub: 404");
    const cached = fake.stored.some(({ id, complete }) => id === source && complete);
    return { bytes: TOTAL, files: FILES, cached };
  },
  offered: async () => [{ source: "fairytales", name: "fairytales", bytes: TOTAL }],
  list: async () => fake.stored.map((row) => ({ ...row })),
  async remove(id) {
    fake.stored = fake.stored.filter((row) => row.id !== id);
  },
};


export class GPT2 extends EventTarget {
  onmemory = null;
  onlost = null;
  onrecovered = null;
  onended = null;
  #cache = 0;
  #alive = true;
  #weights = 0;

  static async load(source, { dtype, onProgress, onMemory, signal } = {}) {
    fake.calls.push(["load", typeof source === "string" ? source : source.length, dtype]);
    if (source === "no/such") throw named("PresetError", "no/such is not on the Hub: 404");
    const lm = new GPT2();
    for (const stage of STAGES) {
      const total = stage === "weights" ? TOTAL : stage === "adapter" ? 0 : 4e6;
      for (let i = 0; i <= 10; i++) {
        if (signal?.aborted) {
          lm.#alive = false;
          onMemory?.(lm.#memory());
          throw aborted();
        }
        const bytes = Math.round((total * i) / 10);
        const seconds = (i * fake.step) / 1000;
        const state = i === 0 ? "start" : i === 10 ? "done" : "progress";
        onProgress?.({ stage, state, bytes, total, seconds, bytesPerSecond: bytes / (seconds || 1) });
        if (fake.failAt?.stage === stage && i === 5) {
          throw named(fake.failAt.name, fake.failAt.message);
        }
        if (stage === "weights") {
          lm.#weights = bytes;
          fake.uploaded = bytes;
          onMemory?.(lm.#memory());
          if (i === 5 && typeof source === "string") keep(source, bytes, false);
          while (i === 6 && fake.holding && !signal?.aborted) await sleep(fake.step);
        }
        await sleep(fake.step);
      }
    }
    if (typeof source === "string") keep(source, TOTAL, true);
    lm.info = {
      model: typeof source === "string" ? source : "folder",
      dtype: dtype ?? "float16",
      parameters: 7498240,
      contextLength: 512,
      vocabularySize: 4096,
      adapter: fake.check.adapter,
      storedBytes: TOTAL,
      stop: fake.stop,
      timeLimit: fake.timeLimit,
      stored: fake.storing && typeof source === "string",
      defaults: DEFAULTS,
      warnings: fake.warnings,
    };
    return lm;
  }

  stream(prompt, { signal, maxTokens = 128, seed = null, ...rest } = {}) {
    fake.calls.push(["stream", prompt, { maxTokens, seed, ...rest }]);
    if (Array.isArray(prompt)) return this.#several(signal, maxTokens, seed, rest.numReturnSequences);
    const report = (stats) => {
      stream.stats = { ...stats };
    };
    const stream = this.#pieces(signal, maxTokens, seed ?? 1, report, rest.tokens ? tokenOf : undefined);
    return Object.assign(stream, { stats: null, details: null });
  }

  /** The texts of `stream` with consecutive seeds, token by token; the last one is a token shorter. */
  #several(signal, maxTokens, seed, count) {
    const generator = async function* (lm) {
      const texts = Array.from({ length: count }, (_, row) => {
        const most = row === count - 1 ? maxTokens - 1 : maxTokens;
        return lm.#pieces(signal, most, seed + row, (stats) => (stream.stats[row] = { ...stats }));
      });
      for (let left = maxTokens; left; left--) {
        for (const [row, text] of texts.entries()) {
          fake.running = 0; // they are one
          const { done, value } = await text.next();
          if (!done) yield { row, text: value };
        }
      }
      for (const text of texts) await text.next();
      fake.running = 0;
    };
    const stream = Object.assign(generator(this), { stats: [], details: null });
    return stream;
  }

  async session(prompt = "", options = {}) {
    return new FakeSession(this, prompt, options);
  }

  async *#pieces(signal, maxTokens, seed, report, shape = (piece) => piece) {
    this.#check();
    if (fake.running) throw named("BusyError", "this model is writing already");
    const stats = { promptTokens: 4, tokens: 0, tokensPerSecond: null, secondsToFirstToken: 0.05, seed, finishReason: null };
    fake.running += 1;
    fake.most = Math.max(fake.most, fake.running);
    this.#cache = 4194304;
    try {
      let offset = 0;
      for (let i = 0; i < Math.min(maxTokens, fake.context ?? maxTokens); i++) {
        await sleep(fake.pause);
        if (signal?.aborted) throw aborted();
        stats.tokens += 1;
        stats.tokensPerSecond = 1000 / (fake.pause || 1);
        if (i % 20 === 0) this.onmemory?.(this.#memory());
        if (fake.end === i) this.#end();
        if (fake.lose === i) this.onlost?.({ message: "driver reset" });
        if (fake.lose === i - 60) this.onrecovered?.({});
        const piece = fake.piece ?? ` ${WORDS[(i * 3 + seed) % WORDS.length]}`;
        report(stats);
        yield shape(piece, i, offset);
        offset += piece.length;
      }
      if (fake.stopToken) yield shape("", maxTokens, offset);
      stats.finishReason = fake.reason ?? (stats.tokens < maxTokens ? "context" : "length");
    } finally {
      stats.finishReason ??= "aborted";
      report(stats);
      fake.running -= 1;
      this.#cache = 0;
      if (this.#alive) this.onmemory?.(this.#memory());
    }
  }

  #check() {
    if (!this.#alive) throw named("DisposedTensorError", "this model was disposed: load it again");
  }

  #end() {
    this.onended?.({ message: "out of memory" });
    throw named("WorkerError", "the worker ended: out of memory; load the model again");
  }

  async memory() {
    this.#check();
    return this.#memory();
  }

  #memory() {
    const weights = this.#alive ? this.#weights : 0;
    const byKind = {
      weights,
      cache: this.#cache,
      workspace: this.#cache / 4,
      parameters: this.#alive ? 4096 : 0,
      staging: this.#cache ? 65536 : 0,
    };
    const live = Object.values(byKind).reduce((sum, bytes) => sum + bytes, 0);
    fake.peak = Math.max(fake.peak ?? 0, live);
    return {
      numTensors: this.#alive ? 100 : 0,
      numBuffers: this.#alive ? (this.#cache ? 112 : 100) : 0,
      numBytes: live,
      numBytesInGpu: live,
      numBytesAllocatedInGpu: live + (this.#alive ? 1e6 : 0),
      peakBytes: fake.peak,
      numScopes: 0,
      byKind,
    };
  }

  tokenizer = {
    encode: async (text) => text.match(/\s*\S+/g) ?? [],
    decode: async (ids) => {
      if (ids.some((id) => TOKENS[id] === undefined)) throw named("TokenizerError", "no such token");
      return ids.map((id) => TOKENS[id]).join("");
    },
    pieces: async (ids) => ids.map((id) => TOKENS[id]),
  };

  /** Words are tokens; each looks at itself (head 0) or at the token before (head 1). */
  async inspect(text, { attention, lens, at, time, peak, bench, signal } = {}) {
    fake.calls.push(["inspect", text, { attention, lens, at, time, bench }]);
    for (const end = performance.now() + (fake.slowInside || fake.pause); performance.now() < end; await sleep(5)) {
      signal?.throwIfAborted();
    }
    if (fake.noInside) throw named("ContextLengthError", fake.noInside);
    const peakError = (peak && fake.noPeak) || null;
    if (time) return { time: { ...timesOf(time), peakReadBandwidth: peak && !peakError ? 2e10 : null, peakError } };
    if (bench) {
      const { ids = { length: BENCH.tokens }, ...sizes } = fake.bench ?? {};
      return { ids: new Uint32Array(ids.length), bench: { ...BENCH, ...sizes } };
    }
    const texts = ["", ...(text.match(/\s*\S+/g) ?? [])];
    const length = texts.length;
    const patterns = new Float32Array(2 * length * length);
    for (let query = 0; query < length; query++) {
      patterns[query * length + query] = 1;
      patterns[(length + query) * length + Math.max(0, query - 1)] = 1;
    }
    const found = { texts, attention: { layers: new Uint32Array([attention]), heads: 2, length, patterns } };
    if (!lens) return found;
    const places = at.map((place) => (place + length) % length);
    const cells = 3 * at.length;
    const repeated = (values) => Array.from({ length: cells }, () => values).flat();
    return {
      ...found,
      pieces: { 5: " wolf", 6: " <b>" },
      lens: {
        layers: ["0_pre", "1_pre", "final_post"],
        positions: Uint32Array.from(places),
        count: 2,
        ids: Int32Array.from(repeated([5, 6])),
        probabilities: Float32Array.from(repeated([0.5, 0.25])),
        divergences: new Float32Array(cells),
        ranks: Int32Array.from({ length: cells }, (_, i) => (places[i % at.length] + 1 < length ? 3 : -1)),
      },
    };
  }

  async python(code, { signal } = {}) {
    fake.calls.push(["python", code]);
    this.#check();
    const { error, wait = 5, deaf, ...given } = fake.console[code] ?? { output: `ran ${code}\n`, result: null };
    for (const end = performance.now() + wait; performance.now() < end; await sleep(5)) {
      if (signal?.aborted && !deaf) throw aborted();
    }
    if (error) throw named("PythonError", error);
    return given;
  }

  async dispose() {
    if (!this.#alive) return;
    this.#alive = false;
    this.onmemory?.(this.#memory());
  }
}

/** The pieces of all ids so far. */
const TOKENS = [];

function idOf(piece) {
  const known = TOKENS.indexOf(piece);
  return known < 0 ? TOKENS.push(piece) - 1 : known;
}

/** A prompt that is not too long. */
function accepted(prompt) {
  if (prompt.length <= fake.longest) return prompt;
  throw named("ContextLengthError", "the prompt has 600 tokens, the context 512: shorten the text");
}

/** A text as tokens: those that it begins with, and one more. */
function pieced(text, pieces) {
  const [first, ...others] = pieces;
  if (!text || !first || !text.startsWith(first)) return text ? [text] : [];
  return [first, ...pieced(text.slice(first.length), others)];
}

/** Words are its tokens. */
class FakeSession {
  #lm;
  #options;
  #pieces;

  constructor(lm, prompt, options) {
    this.#lm = lm;
    this.#options = options;
    this.#pieces = [accepted(prompt)];
    fake.sessions = (fake.sessions ?? 0) + 1;
  }

  stream(options) {
    const stream = this.#lm.stream(this.#pieces.join(""), { ...options, ...this.#options });
    const next = stream.next.bind(stream);
    const kept = this.#pieces;
    stream.next = async () => {
      const result = await next();
      if (!result.done) kept.push(result.value.text ?? result.value);
      else if (fake.reason === "stop_text") kept.push(`${kept.pop()} The`, " End");
      return result;
    };
    return stream;
  }

  async generate(options) {
    let whole = "";
    for await (const piece of this.stream(options)) whole += piece;
    return whole;
  }

  async rewind(tokens) {
    fake.calls.push(["rewind", tokens]);
    if (tokens) this.#pieces.splice(-tokens);
  }

  async append(text) {
    fake.calls.push(["append", text]);
    this.#pieces.push(text);
  }

  async edit(tokens, options = this.#options) {
    fake.calls.push(["edit", tokens]);
    this.#options = options;
    const before = this.#pieces;
    this.#pieces = typeof tokens === "string" ? pieced(accepted(tokens), before) : tokens.map((id) => TOKENS[id]);
    const changed = this.#pieces.findIndex((piece, i) => piece !== before[i]);
    return changed < 0 ? this.#pieces.length : changed;
  }

  async tokenIds() {
    return this.#pieces.map(idOf);
  }

  async text() {
    return this.#pieces.join("");
  }

  async savedRun() {
    if (fake.noRun) throw named("SessionError", fake.noRun);
    return { format: "gpt2-wgpu run", text: this.#pieces.join("") };
  }

  async close() {
    fake.sessions -= 1;
  }
}

/** A step of three dispatches. */
function timesOf(steps) {
  return {
    steps,
    position: 4,
    kernels: ["embed", "linear_gemv", "<b>"],
    weights: [[4096, 256], [256, 1024], []],
    seconds: fake.noTimes ? null : Float32Array.of(4e-6, 2e-4, 1e-4),
    bytes: Float32Array.of(2568, 1e6, 100),
  };
}

/** Seconds of three runs. */
const BENCH = {
  tokens: 70,
  newTokens: 32,
  lensTokens: 12,
  topLogprobs: 20,
  odds: Float32Array.of(0.03, 0.01, 0.02),
  attention: Float32Array.of(0.004, 0.005, 0.006),
  lens: Float32Array.of(0.0009, 0.0011, 0.001),
  stream: Float32Array.of(0.4, 0.2, 0.3),
  detailedStream: Float32Array.of(0.4, 0.3, 0.5),
};

/** A token of a stream: every second one was the most likely. */
function tokenOf(piece, i, offset) {
  const likely = [i % 2 ? " fox" : piece, fake.likely ?? " wolf"];
  return {
    id: idOf(piece),
    text: piece,
    offset,
    logprob: Math.log(i % 2 ? 0.01 : 0.5),
    rank: i % 2 ? 6 : 0,
    entropy: Math.log(8),
    top: likely.map((each, rank) => ({ id: idOf(each), piece: each, logprob: Math.log(0.5 / (rank + 1)) })),
  };
}

function keep(id, bytes, complete) {
  fake.stored = fake.stored.filter((row) => row.id !== id);
  fake.stored.push({ id, name: id, bytes, total: TOTAL, complete, savedAt: 0 });
}
