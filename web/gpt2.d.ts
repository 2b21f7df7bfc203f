/**
 * GPT-2 in the browser: `GPT2.load` → `lm.stream`. Everything heavy runs in one worker.
 *
 * Errors are `Error` objects whose `name` is the class of the Python package (`WeightsError`,
 * `ConfigError`, `PresetError`, `NoAdapterError`, `OutOfGPUMemoryError`, `DeviceLostError`,
 * `ContextLengthError`, `InvalidArgumentError`, `BusyError`, ...), or `WorkerError`, and whose `message` is one line
 * that says what to do; what a signal stops ends with an `AbortError`.
 */

/** The adapter that computes. */
export interface Adapter {
  name: string;
  vendor: string;
  architecture: string;
  /** Computes on the CPU (SwiftShader, llvmpipe, WARP): right, but slow. */
  software: boolean;
  backend: string;
}

export interface Check {
  ok: boolean;
  code?: "insecure" | "no-webgpu" | "no-adapter";
  /** Why it cannot compute here, and what helps: plain sentences. */
  reason?: string;
  remedy?: string;
  adapter?: Adapter;
  /** What is worth knowing although it works. */
  warnings: string[];
}

/** Whether this browser can compute; downloads nothing. */
export function check(): Promise<Check>;

/**
 * Where a model comes from: "fairytales" (beside this site), a short name ("gpt2"), "owner/name"
 * or "hf://owner/name[@revision]" on the Hugging Face Hub or the address of its page there, the
 * address of a directory, whole or relative to the page, or files the visitor picked (config.json,
 * model.safetensors or shards, tokenizer.json or vocab.json and merges.txt).
 */
export type Source = string | FileList | File[] | FileSystemDirectoryHandle;

export interface SourceOptions {
  /** Another host that serves what huggingface.co serves. */
  hub?: string;
}

// begin: weight formats (written by scripts/generate_web.py from gpt2_wgpu/weight_formats.py)
export type Dtype = "float32" | "float16" | "q8" | "q4";
// end: weight formats

export interface LoadOptions extends SourceOptions {
  /**
   * How matrices lie on the GPU; arithmetic is always f32. Default: as converted, else "float16", or
   * "q8" on a software adapter that is faster so (`info.warnings` then says it).
   */
  dtype?: Dtype;
  /** Look for a newer version of a stored model; the stored one serves when there is none. */
  update?: boolean;
  onProgress?: (progress: Progress) => void;
  /**
   * What is held on the GPU: a few times a second while the weights are uploaded, and once more when
   * a load that failed or was cancelled has freed its memory.
   */
  onMemory?: (memory: Memory) => void;
  /** An abort rejects at once; what was downloaded is kept. */
  signal?: AbortSignal;
}

/** `python` and `package` run beside the download of `weights`; then come `adapter`, `shaders`. */
export interface Progress {
  stage: "python" | "package" | "adapter" | "weights" | "shaders";
  state: "start" | "progress" | "done";
  /** Of `weights`: it is downloaded, its hash is checked, it goes to the GPU. */
  phase?: "download" | "verify" | "upload";
  bytes?: number;
  total?: number;
  /** Since the stage began. */
  seconds: number;
  bytesPerSecond?: number;
  /** Nothing came over the network. */
  cached?: boolean;
  /** Of `python`, where a snapshot of its memory was found: "used", or why it could not be. */
  snapshot?: string;
  /** Such as: there is no room to store the model. */
  warning?: string;
}

export interface Size {
  bytes: number;
  files: { name: string; bytes: number }[];
  /** A complete copy is stored here already. */
  cached: boolean;
}

export interface StoredModel {
  /** May be loaded as a source. */
  id: string;
  name: string;
  /** Stored so far, and in the end. */
  bytes: number;
  total: number;
  /** False: its download was cut; loading it goes on from there. */
  complete: boolean;
  savedAt: string;
}

/** Models in the browser's storage. */
export const models: {
  /** Exact, before any download. */
  size(source: Source, options?: SourceOptions & { signal?: AbortSignal }): Promise<Size>;
  /** What lies beside this site, ready to load. */
  offered(): Promise<{ source: string; name: string; bytes: number }[]>;
  list(): Promise<StoredModel[]>;
  /** Frees the storage. */
  remove(id: string): Promise<void>;
};

/** The site itself, kept for use without a network. */
export const offline: {
  /** True once all of it is kept: it works offline from then on. */
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

/** Left out, a setting has the default that `lm.info.defaults` shows. */
export interface Settings {
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
   * Divide positive logits of tokens in prompt and text by R, multiply negative ones; 1: off.
   * Default: 1.1; 1 at temperature 0.
   */
  repetitionPenalty?: number;
  /** Subtract X from the logits of tokens already generated; 0: off. Default: 0. */
  presencePenalty?: number;
  /** Subtract X once for each time a token was generated; 0: off. Default: 0. */
  frequencyPenalty?: number;
  /**
   * Seed of the random numbers: same seed, same adapter, same text. Default: a random one, reported
   * in the statistics.
   */
  seed?: number | null;
  /** Stop after N tokens, or at the end of the model's context. Default: 128. */
  maxTokens?: number;
  // end: sampling parameters
  /** A text, or texts, to stop before; one that is a special token ends the text where it comes. */
  stop?: string | string[];
  /** Special tokens that the prompt may spell out, or "all"; others stay text. Default: none. */
  allowedSpecial?: string[] | "all";
}

export interface GenerateOptions extends Settings {
  signal?: AbortSignal;
}

export interface Stats {
  promptTokens: number;
  tokens: number;
  /** After the first token; null before the third. */
  tokensPerSecond: number | null;
  secondsToFirstToken: number | null;
  /** What was drawn when none was given. */
  seed: number | null;
  finishReason: "stop" | "stop_text" | "length" | "closed" | null;
}

/** Pieces of text, whole characters each. Generating begins when the first is asked for. */
export interface TextStream extends AsyncIterableIterator<string, undefined> {
  /** Figures so far; null before the first piece. */
  readonly stats: Stats | null;
}

export interface Info {
  model: string;
  dtype: string;
  parameters: number;
  contextLength: number;
  vocabularySize: number;
  adapter: Adapter;
  /** What the weights take on the GPU. */
  storedBytes: number;
  /** The model's files lie complete in the browser's storage: they will be there offline. */
  stored: boolean;
  defaults: Required<Omit<Settings, "stop" | "allowedSpecial" | "seed">> & { seed: null };
  warnings: string[];
}

/** A loaded model. Its events are "memory", "lost", "recovered" and "ended". */
export class GPT2 extends EventTarget {
  private constructor();
  /**
   * Throws with nothing left on the GPU, and as soon as the download or Python's start fails, whatever
   * the other does; an interrupted download is kept and resumed.
   */
  static load(source: Source, options?: LoadOptions): Promise<GPT2>;
  readonly info: Info;
  /**
   * Generates from `prompt` and gives the text without it. One at a time: a second one throws a
   * BusyError. A signal, or leaving the loop, stops it within one submit.
   */
  stream(prompt: string, options?: GenerateOptions): TextStream;
  /** The whole text. */
  generate(prompt: string, options?: GenerateOptions): Promise<string>;
  /** What lives on the GPU. */
  memory(): Promise<Memory>;
  /** About five times a second while generating, after it, and when the model has been disposed. */
  onmemory: ((memory: Memory) => void) | null;
  /** The device is gone; the next text gets a new one, and the weights again. */
  onlost: ((event: { message: string }) => void) | null;
  onrecovered: ((event: object) => void) | null;
  /**
   * The worker broke down, or `dispose` had to end it, and every model with it: what is called now
   * throws a WorkerError, and `GPT2.load` starts a new worker.
   */
  onended: ((event: { message: string }) => void) | null;
  /**
   * Runs code in the worker, with `gw` and `lm` at hand and `await` at the top level; names stay
   * from call to call. Throws an error with Python's traceback as message.
   */
  python(code: string, options?: { signal?: AbortSignal }): Promise<{ output: string; result: string | null }>;
  /**
   * Stops what runs and frees the GPU's memory; the last "memory" event has what is still held.
   * Idempotent. A worker that does not answer within five seconds, because
   * its Python code never waits, is ended with all its models.
   */
  dispose(): Promise<void>;
}
