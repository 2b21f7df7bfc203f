/**
 * GPT-2 in the browser: `GPT2.load` → `lm.stream`. All work runs in one worker.
 *
 * Errors have the name of the class of the Python package (`WeightsError`, `ConfigError`, `PresetError`,
 * `NoAdapterError`, `OutOfGPUMemoryError`, `DeviceLostError`, `BusyError`, ...), or `WorkerError`, and a
 * `message` of one line with fault and remedy. `InvalidArgumentError` and `ContextLengthError` are
 * `RangeError`s. A call stopped by a signal rejects with the signal's `reason`, by default an `AbortError`.
 */

/** The GPU adapter in use. */
export interface Adapter {
  name: string;
  vendor: string;
  architecture: string;
  /** Runs on the CPU (SwiftShader, llvmpipe, WARP): correct, but slow. */
  software: boolean;
  backend: string;
}

export interface Check {
  ok: boolean;
  code?: "insecure" | "no-webgpu" | "no-adapter";
  /** Why WebGPU cannot be used here, and what to do: sentences for a visitor. */
  reason?: string;
  remedy?: string;
  adapter?: Adapter;
  /** Restrictions that do not prevent use. */
  warnings: string[];
}

/**
 * Sets the address of the folder that holds `web/`, `pyodide/`, `wheels/` and `models/`, relative to
 * the page. Needed only where a bundler moved this module away from them; another origin must send
 * CORS headers, and the policy of the page `worker-src blob:`. Throws an `InvalidStateError` once
 * another call has started the worker from a different folder, and TypeError for an invalid address.
 */
export function configure(options: { baseURL: string | URL }): void;

/** Checks whether WebGPU can be used; downloads nothing. */
export function check(): Promise<Check>;

/**
 * The source of a model: "fairytales" (included with this site), a short name ("gpt2"), "owner/name"
 * or "hf://owner/name[@revision]" on the Hugging Face Hub or the URL of its page there, the URL of a
 * directory, absolute or relative to the page, or files that the visitor picked (config.json,
 * model.safetensors or shards, tokenizer.json or vocab.json and merges.txt).
 */
export type Source = string | FileList | File[] | FileSystemDirectoryHandle;

export interface SourceOptions {
  /** URL of a mirror of huggingface.co. */
  hub?: string;
}

// begin: weight formats (written by scripts/generate_web.py from gpt2_wgpu/weight_formats.py)
export type Dtype = "float32" | "float16" | "q8" | "q4";
// end: weight formats

export interface LoadOptions extends SourceOptions {
  /**
   * Storage format of weight matrices; arithmetic is f32 (with q8 and q4 on software adapters,
   * activations are rounded to 8 bits). Default: as converted, else "float16", or "q8" on a software
   * adapter if measured to be faster (then with an entry in `info.warnings`).
   */
  dtype?: Dtype;
  /** Look for a newer version of a stored model; if there is none, the stored one is used. */
  update?: boolean;
  onProgress?: (progress: Progress) => void;
  /**
   * GPU memory in use: a few times a second while the weights are uploaded, and once more after a
   * load that failed or was cancelled has freed its memory.
   */
  onMemory?: (memory: Memory) => void;
  /** An abort rejects at once; the downloaded part is kept. */
  signal?: AbortSignal;
}

/** `python` and `package` run beside the download of `weights`; then come `adapter`, `shaders`. */
export interface Progress {
  stage: "python" | "package" | "adapter" | "weights" | "shaders";
  state: "start" | "progress" | "done";
  /** Of `weights`: download, check of the hashes, upload to the GPU. */
  phase?: "download" | "verify" | "upload";
  bytes?: number;
  total?: number;
  /** Since the stage began. */
  seconds: number;
  bytesPerSecond?: number;
  /** Nothing came over the network. */
  cached?: boolean;
  /** Of `python`, if a snapshot of its memory was found: "used", or why it was not. */
  snapshot?: string;
  /** For example, that there is no room to store the model. */
  warning?: string;
}

export interface Size {
  bytes: number;
  files: { name: string; bytes: number }[];
  /** Whether a complete copy is stored in this browser. */
  cached: boolean;
}

export interface StoredModel {
  /** Usable as a source. */
  id: string;
  name: string;
  /** Bytes stored so far, and of the complete model. */
  bytes: number;
  total: number;
  /** False after an interrupted download; loading resumes it. */
  complete: boolean;
  savedAt: string;
}

/** Models in the browser's storage. */
export const models: {
  /** Exact size, before any download. */
  size(source: Source, options?: SourceOptions & { signal?: AbortSignal }): Promise<Size>;
  /** Models included with this site; a folder that holds no whole model is left out. */
  offered(): Promise<{ source: string; name: string; bytes: number }[]>;
  list(): Promise<StoredModel[]>;
  /** Frees the storage. */
  remove(id: string): Promise<void>;
};

/** Offline use of the site itself. */
export const offline: {
  /**
   * Resolves to true once the whole site is stored and works offline. With the npm package this is the
   * library with its worker: your own page needs a service worker of its own.
   */
  enable(): Promise<boolean>;
};

export interface Memory {
  numTensors: number;
  numBuffers: number;
  numBytes: number;
  numBytesInGpu: number;
  numBytesAllocatedInGpu: number;
  peakBytes: number;
  numScopes: number;
  byKind: { weights: number; parameters: number; cache: number; workspace: number; staging: number };
}

/** Numbers of sampling; defaults are those of `lm.info.defaults`. */
export interface SamplingParameters {
  // begin: sampling parameters (written by scripts/generate_web.py from gpt2_wgpu/sampling_parameters.py)
  /** Temperature; higher is more random, 0 is greedy search. Default: 0.8. */
  temperature?: number;
  /** Sample from the K most likely tokens; 0: off. Default: 40. */
  topK?: number;
  /**
   * Nucleus sampling: the smallest set of tokens with cumulative probability P; 1: off. Default:
   * 0.95.
   */
  topP?: number;
  /**
   * Drop tokens with less than P times the probability of the most likely one; 0: off. Default: 0.
   */
  minP?: number;
  /**
   * Locally typical sampling: the tokens of cumulative probability P whose information is closest
   * to the expected one; 1: off. Default: 1.
   */
  typicalP?: number;
  /**
   * Divide positive logits of tokens in prompt and text by R, multiply negative ones; 1: off.
   * Default: 1.1; 1 at temperature 0.
   */
  repetitionPenalty?: number;
  /** Subtract X from the logits of tokens already generated; 0: off. Default: 0. */
  presencePenalty?: number;
  /** Subtract X once for each time a token was generated; 0: off. Default: 0. */
  frequencyPenalty?: number;
  /** Let no sequence of N tokens occur twice in prompt and text; 0: off. Default: 0. */
  noRepeatNgramSize?: number;
  /** No end token before N tokens, with those of the prompt; 0: off. Default: 0. */
  minLength?: number;
  /** No end token before N new tokens; 0: off. Default: 0. */
  minNewTokens?: number;
  /**
   * Seed of the random numbers: same seed, same adapter, same text. Default: a random one, which is
   * reported.
   */
  seed?: number | null;
  /** Stop after N tokens, or at the end of the model's context. Default: 128. */
  maxTokens?: number;
  // end: sampling parameters
}

/** Sampling, rules for tokens, and stopping. */
export interface Settings extends SamplingParameters {
  /**
   * Text or texts to stop before; a special token as stop text ends the text where it is generated.
   * Default: those of the model's generation_config.json; [] for none.
   */
  stop?: string | string[];
  /** Special tokens to recognise in the prompt, or "all"; others are plain text. Default: none. */
  allowedSpecial?: string[] | "all";
  /** Whether a start token precedes the prompt. Default: as the model's tokenizer says. */
  addStartToken?: boolean;
  /** Numbers that are added to the logits of ids. */
  logitBias?: Record<number, number>;
  /** Ids that are never chosen. */
  suppressTokens?: number[];
  /** Ids that are not chosen as the first new token. */
  beginSuppressTokens?: number[];
  /** Lists of ids that do not occur in the new text. */
  badWordsIds?: number[][];
  /** Pairs of ids and a number that is added to the logit of their last id after the others. */
  sequenceBias?: [number[], number][];
  /** The second token of a text whose prompt is one token. */
  forcedBosTokenId?: number;
  /** The last token of a text that reaches its length. */
  forcedEosTokenId?: number | number[];
  /**
   * Address of a module (absolute, or relative to the page) whose exports restrict the text:
   * `allows(text, piece)`, whether `piece` may follow the new text so far, and `finished(text)`,
   * whether the text may end. They run in the worker, for every token of the vocabulary at each step.
   */
  constraint?: string | URL;
  /**
   * Beam search with this number of beams (1 to 32) in place of a random choice: the text arrives in one
   * piece. `numReturnSequences` are the best beams.
   */
  numBeams?: number;
  /** Exponent of the length, by which log-probabilities of beams are divided. Default: 1. */
  lengthPenalty?: number;
  /**
   * Seconds after which the text ends, with finish reason "time_limit"; Infinity: no limit. Default:
   * that of generation_config.json, else no limit.
   */
  timeLimit?: number;
  /**
   * Whether to wait while the model runs another call, in place of a BusyError. Default: false (Python
   * waits), since a page that has a Stop button wants to know at once that a text is being written.
   */
  wait?: boolean;
}

export interface GenerateOptions extends Settings {
  /** An abort rejects with the reason of the signal. */
  signal?: AbortSignal;
}

export interface DetailOptions {
  /** Whether to give log-probabilities, which the steps that choose the tokens compute. */
  details: true;
  /** Number of the most likely tokens for each place, at most 20. Default: 0, so that `top` has none. */
  topLogprobs?: number;
}

export interface NoDetailOptions {
  details?: false;
}

/** Details of a text that streams: its `details`, once it has ended. */
export interface StreamDetailOptions {
  details?: boolean;
  topLogprobs?: number;
}

export interface SeveralOptions {
  /** Seed of each text; consecutive ones from a number. Each text is that of its prompt and seed alone. */
  seed?: number | number[] | null;
  /**
   * Number of texts for each prompt, one after the other in the result. Default: 1. Greedy and contrastive
   * search have one text only.
   */
  numReturnSequences?: number;
}

export interface AllBeamsOptions {
  /** Whether `generate` gives all `numBeams` texts of each prompt, best first, one prompt after the other. */
  returnAllBeams: true;
}

/** A text of a beam search, with its log-probability / new tokens ** lengthPenalty. */
export interface Beam {
  text: string;
  score: number;
}

export interface InspectOptions {
  /** Number of the most likely tokens at the place of each token, at most 20. */
  odds?: number;
  /** Layer or layers, from 0. */
  attention?: number | number[];
  /** Number of the most likely tokens by the residual stream of each layer. */
  lens?: number;
  /** Positions of the lens, negative from the end; default: all. */
  at?: number[];
  /** Number of greedy decode steps after the text whose times are averaged, at most 512. */
  time?: number;
  /**
   * Whether to measure the adapter's peak read bandwidth with `time`: once for each device, with up to 512 MiB of
   * its memory. Default: false.
   */
  peak?: boolean;
  /**
   * Number of times, at most 100, to time odds, attention, lens and streams of the text: what
   * `gpt2-wgpu bench --inspection` measures. A BenchmarkError where numbers that it compares differ.
   */
  bench?: number;
  signal?: AbortSignal;
}

export interface Inspection {
  ids: Uint32Array;
  /** Text of each token: whole characters; "" for a start token that was added. */
  texts: string[];
  /** Where each begins in the text. */
  offsets: Uint32Array;
  /** Text of each of the most likely tokens below, by its id; a part of a character is "\ufffd". */
  pieces: Record<number, string>;
  /** How each token was predicted: NaN or -1 for the first. */
  odds?: {
    logprobs: Float32Array;
    /** Number of tokens that are more likely. */
    ranks: Int32Array;
    /** Of the predicted distribution, in nats. */
    entropies: Float32Array;
    /** The most likely ids, `count` for each token. */
    top: { count: number; ids: Int32Array; logprobs: Float32Array };
  };
  /** Weights [layer, head, query, key]. */
  attention?: { layers: Uint32Array; heads: number; length: number; patterns: Float32Array };
  /** The most likely next tokens [layer, position, count] (logit lens, nostalgebraist 2020). */
  lens?: {
    /** "0_pre", "1_pre", ..., "final_post": before each block, and after the last. */
    layers: string[];
    positions: Uint32Array;
    count: number;
    ids: Int32Array;
    probabilities: Float32Array;
    /** KL divergence of the final prediction from that of each layer [layer, position], in nats. */
    divergences: Float32Array;
    /** Number of tokens that are more likely than the one that follows; -1 after the last. */
    ranks: Int32Array;
  };
  /** The dispatches of one decode step, in their order. */
  time?: {
    /** Number of steps that the times are means of. */
    steps: number;
    /** Position of the first of them. */
    position: number;
    /** Name of each shader. */
    kernels: string[];
    /** Shape of the weights that each reads; [] without. */
    weights: number[][];
    /**
     * GPU time of each dispatch in a pass of its own, so that the sum is more than a step takes; null
     * where the browser has no timestamp queries. Browsers may round each time to 100 µs.
     */
    seconds: Float32Array | null;
    /** Bytes that each reads and writes. */
    bytes: Float32Array;
    /** Bytes per second that the adapter can read; null without `peak`. */
    peakReadBandwidth: number | null;
    /** Why these could not be measured (too little memory); null if they were, or without `peak`. */
    peakError: string | null;
  };
  /** Seconds of each run, until its numbers are in Python. */
  bench?: {
    /** Number of tokens that were measured: the last of the text, at most 256, with room for the streams. */
    tokens: number;
    /** Number of tokens of each stream. */
    newTokens: number;
    /** Number of tokens of the lens. */
    lensTokens: number;
    /** Number of alternatives in `odds` and `detailedStream`. */
    topLogprobs: number;
    /** How each token was predicted, after one in the middle was replaced. */
    odds: Float32Array;
    /** Attention of all heads of the middle layer. */
    attention: Float32Array;
    /** The lens of the first `lensTokens` tokens, all layers. */
    lens: Float32Array;
    /** A greedy stream after the text, with the time of the text. */
    stream: Float32Array;
    /** That stream with alternatives of each token. */
    detailedStream: Float32Array;
  };
}

/** A text with its tokens. Log-probabilities are the model's, in nats, before penalties and temperature. */
export interface Details {
  text: string;
  /** The new ids. */
  tokenIds: number[];
  /** The text of each id; a character of several tokens is with the last of them. */
  pieces: string[];
  logprobs: number[];
  /** For each id the number of tokens that were more likely. */
  ranks: number[];
  /** For each id the entropy of the model's distribution, in nats. */
  entropies: number[];
  /** For each id the most likely tokens, in descending order: `topLogprobs` of the call, by default none. */
  top: { id: number; piece: string; logprob: number }[][];
  finishReason: FinishReason;
  promptTokens: number;
  /** null: greedy search. */
  seed: number | null;
  timings: { secondsToFirstToken: number | null; seconds: number };
  /** That of a `Beam`, with `returnAllBeams`; else null. */
  score: number | null;
}

/**
 * "stop": a stop token; "stop_text": a stop text; "length": maxTokens reached; "context": the model's
 * context is full; "time_limit"; "aborted": stopped by the caller or an error.
 */
export type FinishReason = "stop" | "stop_text" | "length" | "context" | "time_limit" | "aborted";

export interface Stats {
  promptTokens: number;
  tokens: number;
  /** Decode speed, without the first token; null before the third. */
  tokensPerSecond: number | null;
  secondsToFirstToken: number | null;
  /** The seed in use, also if none was given. */
  seed: number | null;
  /** null: still running. */
  finishReason: FinishReason | null;
}

/** Pieces of text in whole characters. Generation starts at the first `next()`. */
export interface TextStream extends AsyncIterableIterator<string, undefined> {
  /** Statistics so far; null before the first piece. */
  readonly stats: Stats | null;
  /** With `details: true`, after the end; else null. */
  readonly details: Details | null;
}

export interface TokenOptions {
  /** Whether the stream is one of tokens, each with how the model predicted it. */
  tokens: true;
  /** Number of the most likely tokens at the place of each, at most 20. Default: 0. */
  topLogprobs?: number;
}

/** A token of a text, given once its text is certain. Numbers are those of Details. */
export interface StreamedToken {
  id: number;
  /** What it adds to the text: whole characters; nothing of a stop text or a stop token. */
  text: string;
  /** Where `text` begins in the new text. */
  offset: number;
  logprob: number;
  /** Number of tokens that were more likely. */
  rank: number;
  /** Of the model's distribution, in nats. */
  entropy: number;
  /** The most likely tokens, in descending order. */
  top: { id: number; piece: string; logprob: number }[];
}

/** Tokens of a text. Otherwise as TextStream. */
export interface TokenStream extends AsyncIterableIterator<StreamedToken, undefined> {
  readonly stats: Stats | null;
  readonly details: Details | null;
}

/** Pieces of several texts, generated together, each with its row. Otherwise as TextStream. */
export interface BatchStream extends AsyncIterableIterator<{ row: number; text: string }, undefined> {
  /** Statistics of each text, from its first piece on; after the end those of all. */
  readonly stats: Stats[] | null;
  readonly details: Details[] | null;
}

/** Texts and token ids. Works while a text is generated, too. */
export interface Tokenizer {
  /** The ids of a text, without start token. */
  encode(text: string, options?: { allowedSpecial?: string[] | "all" }): Promise<number[]>;
  decode(tokenIds: number[]): Promise<string>;
  /** The text of each token; a character of several tokens is with the last of them. */
  pieces(text: string | number[], options?: { allowedSpecial?: string[] | "all" }): Promise<string[]>;
}

/** A text or texts, encoded like prompts; or ids, one row or several. */
export type Texts = string | string[] | number[] | number[][];

export interface EvaluationOptions {
  /** Step of the windows over texts longer than the context. Default: half the context. */
  stride?: number;
  signal?: AbortSignal;
}

export interface Info {
  model: string;
  dtype: string;
  parameters: number;
  contextLength: number;
  vocabularySize: number;
  adapter: Adapter;
  /** Bytes of the weights on the GPU. */
  storedBytes: number;
  /** Whether the model is complete in the browser's storage, and so available offline. */
  stored: boolean;
  defaults: Required<Omit<SamplingParameters, "seed">> & { seed: null };
  /** Stop texts of the checkpoint: those of a call without `stop`. */
  stop: string[];
  /** Seconds of the checkpoint's time limit: that of a call without `timeLimit`; null: none. */
  timeLimit: number | null;
  warnings: string[];
}

/** Settings of a text of a session, which has start token and prompt already. */
export type SessionTextOptions = Omit<GenerateOptions, "addStartToken" | "allowedSpecial">;

export interface SessionOptions {
  /** Most tokens that the text has at once. Default, and maximum: the context. */
  maxLength?: number;
  /**
   * What happens to a text of `maxLength`: a ContextLengthError, or its oldest tokens are dropped,
   * before a call ("truncate_left") or also within one ("slide"). Default: "error".
   */
  contextPolicy?: "error" | "truncate_left" | "slide";
  /** Whether a start token precedes the prompt. Default: as the model's tokenizer says. */
  addStartToken?: boolean;
  allowedSpecial?: string[] | "all";
}

/**
 * A text in the worker that is continued, changed and forked; made by `lm.session`. The keys and
 * values of its tokens stay on the GPU, so that only new tokens are computed. They are freed by
 * `close`, by the model's `dispose`, or some time after the last reference is gone. Serves one call
 * at a time (BusyError).
 */
export class Session {
  private constructor();
  /** Generates the text that follows, and keeps its tokens; after a stop those up to it. */
  stream(options?: SessionTextOptions & StreamDetailOptions): TextStream;
  /** The tokens of that text; each of a text that slides with the numbers of the context that chose it. */
  stream(options: SessionTextOptions & StreamDetailOptions & TokenOptions): TokenStream;
  generate(options: SessionTextOptions & DetailOptions): Promise<Details>;
  generate(options?: SessionTextOptions & NoDetailOptions): Promise<string>;
  /** Appends a text, without start token, or ids; they are computed by the next text. */
  append(tokens: string | number[], options?: { allowedSpecial?: string[] | "all" }): Promise<void>;
  /** Removes the last tokens. */
  rewind(tokens: number): Promise<void>;
  /** Replaces the whole text; what its beginning has in common with the old one stays computed: the number of tokens. */
  edit(tokens: string | number[], options?: { allowedSpecial?: string[] | "all" }): Promise<number>;
  /** Another session with the same tokens, which shares their memory. */
  fork(): Promise<Session>;
  /** All tokens, start token included; while a text is generated, those before it. */
  tokenIds(): Promise<number[]>;
  text(): Promise<string>;
  /** The session with its keys and values, for `lm.loadSession`. */
  toBytes(options?: { signal?: AbortSignal }): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * What generates this text again: as JSON a file for `gpt2-wgpu replay`. An error where nothing was
   * generated in this session; texts with a constraint count as given.
   */
  savedRun(): Promise<SavedRun>;
  close(): Promise<void>;
}

/** A text of a session, and the model that wrote it. */
export interface SavedRun {
  format: "gpt2-wgpu run";
  version: number;
  /** Hub id, address or preset that it was loaded from; of files of this device the folder's name. */
  model: string;
  /** Digest of the weights. */
  weights: string;
  dtype: string;
  /** Format of keys and values. */
  cache_dtype: string;
  token_ids: number[];
  /** What was generated: tokens from `start` to before `end`, by this sampler with its seed. */
  parts: { start: number; end: number; sampler: { class_name: string; config: Record<string, unknown> } }[];
}

/** Events of a model; `detail` is the argument of the functions `onmemory`, `onlost`, ... */
export interface GPT2EventMap {
  memory: CustomEvent<Memory>;
  lost: CustomEvent<{ message: string }>;
  recovered: CustomEvent<object>;
  ended: CustomEvent<{ message: string }>;
}

/** A loaded model. Its events are those of GPT2EventMap. */
export class GPT2 extends EventTarget {
  private constructor();
  /**
   * Loads a model. Throws as soon as the download or Python's start fails, and leaves nothing on the
   * GPU then; an interrupted download is kept and resumed.
   */
  static load(source: Source, options?: LoadOptions): Promise<GPT2>;
  readonly info: Info;
  readonly tokenizer: Tokenizer;
  /**
   * Generates the text that follows `prompt`, a text or its ids (then without start token). A second
   * stream at the same time throws BusyError. A signal, or leaving the loop, stops it within one submit
   * to the GPU.
   */
  stream(prompt: string | number[], options?: GenerateOptions & StreamDetailOptions): TextStream;
  /** The tokens of the text. Log-probabilities are computed while it is generated. */
  stream(prompt: string | number[], options: GenerateOptions & StreamDetailOptions & TokenOptions): TokenStream;
  /** Several prompts, or `numReturnSequences` texts of each: all are generated together. */
  stream(
    prompts: string | number[] | string[] | number[][],
    options?: Omit<GenerateOptions, "seed"> & SeveralOptions & StreamDetailOptions,
  ): BatchStream;
  /**
   * The text that follows a prompt, or its details. Several prompts, or `numReturnSequences` above 1,
   * give an array of texts that are generated together.
   */
  generate(prompt: string | number[], options: GenerateOptions & DetailOptions): Promise<Details>;
  generate(prompt: string | number[], options?: GenerateOptions & NoDetailOptions): Promise<string>;
  generate(
    prompts: string | string[],
    options: Omit<GenerateOptions, "seed"> & SeveralOptions & DetailOptions,
  ): Promise<Details[]>;
  generate(prompts: string | string[], options: GenerateOptions & AllBeamsOptions & DetailOptions): Promise<Details[]>;
  generate(prompts: string | string[], options: GenerateOptions & AllBeamsOptions & NoDetailOptions): Promise<Beam[]>;
  generate(
    prompts: string | string[],
    options?: Omit<GenerateOptions, "seed"> & SeveralOptions & NoDetailOptions,
  ): Promise<string[]>;
  /** Begins a session with a text, or with ids (then without start token). */
  session(prompt?: string | number[], options?: SessionOptions): Promise<Session>;
  /** Loads a session of `toBytes`. Throws SessionError if it is damaged, or of another model or dtype. */
  loadSession(bytes: Uint8Array, options?: { signal?: AbortSignal }): Promise<Session>;
  /** Log-probabilities of the tokens of texts, except the first of each, in nats. */
  logprobs(text: string | number[], options?: EvaluationOptions): Promise<number[]>;
  logprobs(texts: string[] | number[][], options?: EvaluationOptions): Promise<number[][]>;
  /** exp of the mean of minus the log-probabilities of all tokens. */
  perplexity(texts: Texts, options?: EvaluationOptions): Promise<number>;
  /**
   * What the model computes for each token of a text (with start token) or of ids. Only what is asked
   * for is computed; the arrays are flat.
   */
  inspect(input: string | number[], options?: InspectOptions): Promise<Inspection>;
  /**
   * Logits of each position, one after the other (tokens × vocabulary); with `targetIds` the losses in
   * nats of these ids, the one to predict after each position.
   */
  score(tokenIds: number[], options?: { targetIds?: number[]; signal?: AbortSignal }): Promise<Float32Array>;
  addEventListener<K extends keyof GPT2EventMap>(
    type: K,
    listener: (event: GPT2EventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  /** GPU memory in use. */
  memory(): Promise<Memory>;
  /** Called about five times a second while generating, after each text, and after dispose. */
  onmemory: ((memory: Memory) => void) | null;
  /** Called when the GPU device is lost; the next text opens a new one and reloads the weights. */
  onlost: ((event: { message: string }) => void) | null;
  onrecovered: ((event: object) => void) | null;
  /**
   * Called when the worker broke down, or `dispose` had to end it, with all its models: calls now
   * throw WorkerError, and `GPT2.load` starts a new worker.
   */
  onended: ((event: { message: string }) => void) | null;
  /**
   * Runs Python code in the worker: `lm` is this model, `gw` the package, `await` works at the top
   * level, and variables persist. Throws an error with Python's traceback as message.
   */
  python(code: string, options?: { signal?: AbortSignal }): Promise<{ output: string; result: string | null }>;
  /**
   * Stops a running text and frees the model's GPU memory; a last "memory" event reports what is still
   * in use. Idempotent. A worker that does not respond within five seconds, because its Python code
   * never awaits, is ended with all its models.
   */
  dispose(): Promise<void>;
}
