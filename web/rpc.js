/**
 * Calls across a worker's port: arguments, events and results are plain structured-cloneable data.
 *
 *     page → worker   {id, method, args} · {id, cancel: true}
 *     worker → page   {id, event} · {id, result} · {id, error: {name, message}} · {topic, event}
 *                     {fatal: reason}: the worker cannot answer calls any more
 *
 * An error keeps its name (the Python class) and its one-line message.
 */

/** Python's errors that are classes of JavaScript; others are an Error. @type {Map<string, ErrorConstructor>} */
const CLASSES = new Map(
  Object.entries({
    InvalidArgumentError: RangeError,
    ShapeError: RangeError,
    TokenizerError: RangeError,
    ContextLengthError: RangeError,
    ValueError: RangeError,
    RangeError,
    CopyError: TypeError,
    TypeError,
    SyntaxError,
  }),
);

/** An Error with a given name and message. @param {{name: string, message: string}} fault */
export function errorOf({ name, message }) {
  const error = new (CLASSES.get(name) ?? Error)(message);
  error.name = name;
  return error;
}

/** The AbortError of a stopped call. */
export function aborted() {
  return new DOMException("stopped by the caller", "AbortError");
}

/**
 * The result of `promise`, or an AbortError as soon as `signal` aborts.
 *
 * @template T @param {Promise<T>} promise @param {AbortSignal} signal @returns {Promise<T>}
 */
export function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(aborted());
    const stop = () => reject(aborted());
    signal.addEventListener("abort", stop);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** The calling side. */
export class Caller {
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void, onEvent?: (event: any) => void}>} */
  #waiting = new Map();
  #next = 0;
  /** @type {Worker} */
  #worker;
  /** Called with events outside of any call. @type {(topic: string, event: any) => void} */
  onTopic = () => {};
  /** Called when the worker has ended; pending and later calls are rejected. @type {(error: Error) => void} */
  onDeath = () => {};
  #started = false;
  /** @type {Error | null} */
  #death = null;

  /** @param {Worker} worker @param {string} [unloaded] the error if its script does not load */
  constructor(worker, unloaded = "its script could not be loaded") {
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#receive(data);
    worker.onerror = (event) => {
      event.preventDefault?.();
      if (this.#started) console.error(event.message); // a stray error: the worker lives on
      else this.#die(event.message || unloaded);
    };
  }

  get dead() {
    return this.#death !== null;
  }

  /**
   * @param {string} method
   * @param {any[]} args
   * @param {{signal?: AbortSignal, onEvent?: (event: any) => void, onLate?: (result: any) => void}} [options]
   *     `onLate`: an abort rejects the call at once, although the worker may take a while to stop;
   *     a result that it returns all the same goes to this function. Events come until it stops.
   * @returns {Promise<any>}
   */
  call(method, args, { signal, onEvent, onLate } = {}) {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#death) return Promise.reject(this.#death);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const cancel = () => {
        this.#worker.postMessage({ id, cancel: true });
        if (!onLate) return;
        this.#waiting.set(id, { resolve: onLate, reject: () => {}, onEvent });
        settled();
        reject(signal?.reason);
      };
      const settled = () => signal?.removeEventListener("abort", cancel);
      signal?.addEventListener("abort", cancel);
      this.#waiting.set(id, {
        resolve: (value) => (settled(), resolve(value)),
        reject: (error) => (settled(), reject(signal?.aborted && error.name === "AbortError" ? signal.reason : error)),
        onEvent,
      });
      try {
        this.#worker.postMessage({ id, method, args });
      } catch (error) {
        this.#waiting.delete(id); // arguments that cannot be cloned
        settled();
        reject(error);
      }
    });
  }

  /** @param {any} message */
  #receive({ id, topic, event, error, result, fatal }) {
    this.#started = true;
    if (fatal !== undefined) return this.#die(fatal);
    if (topic !== undefined) return this.onTopic(topic, event);
    const call = this.#waiting.get(id);
    if (!call) return;
    if (event !== undefined) return call.onEvent?.(event);
    this.#waiting.delete(id);
    if (!error) return call.resolve(result);
    call.reject(error.name === "AbortError" ? aborted() : errorOf(error));
  }

  /** Gives the worker up: it is dead from now on. @param {string} reason */
  end(reason) {
    this.#die(reason);
  }

  /** @param {string} reason */
  #die(reason) {
    if (this.#death) return;
    this.#death = errorOf({ name: "WorkerError", message: `the worker ended: ${reason}; load the model again` });
    const calls = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of calls) reject(this.#death);
    this.onDeath(this.#death);
  }
}

/** Whether this worker has reported its end. */
let ended = false;
/** @param {any} message */
const send = (message, /** @type {ArrayBuffer[]} */ moved = []) => ended || self.postMessage(message, moved);

/** Memory of the arrays in a result, which is moved, not copied. @param {any} value @returns {ArrayBuffer[]} */
function buffersOf(value) {
  if (ArrayBuffer.isView(value)) return value.buffer instanceof ArrayBuffer ? [value.buffer] : [];
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [];
  return [...new Set(Object.values(value).flatMap(buffersOf))];
}

/**
 * The serving side: lets a worker's port answer calls.
 *
 * @param {Record<string, (context: {signal: AbortSignal, emit: (event: any) => void}, ...args: any[]) => any>} methods
 */
export function serve(methods) {
  /** @type {Map<number, AbortController>} */
  const running = new Map();

  self.onmessage = async ({ data: { id, method, args, cancel } }) => {
    if (cancel) return running.get(id)?.abort(aborted());
    const controller = new AbortController();
    running.set(id, controller);
    try {
      const emit = (/** @type {any} */ event) => send({ id, event });
      const result = await methods[method]({ signal: controller.signal, emit }, ...args);
      send({ id, result }, buffersOf(result));
    } catch (error) {
      send({ id, error: faultOf(error) });
    } finally {
      running.delete(id);
    }
  };
  // An error outside of any call, for example in a callback, does not end the worker.
  self.addEventListener("error", (event) => {
    event.preventDefault();
    console.error(event.message);
  });
}

/** Sends an event outside of any call, from the worker. @param {string} topic @param {any} event */
export const post = (topic, event) => send({ topic, event });

/** Reports, after `last`, that this worker can answer no more calls. @param {string} reason @param {Promise<void>} [last] */
export async function end(reason, last) {
  ended = true;
  await last;
  self.postMessage({ fatal: reason });
}

/**
 * Name and message of a thrown value. A Python error has its class in `type` and a traceback as
 * message, whose last line is used.
 *
 * @param {any} error
 */
export function faultOf(error) {
  if (error?.name !== "PythonError") {
    return { name: error?.name ?? "Error", message: error?.message ?? String(error) };
  }
  const last = error.message.trimEnd().split("\n").pop() ?? "";
  const message = last.replace(/^[\w.]+: /, "");
  return { name: error.type, message };
}
