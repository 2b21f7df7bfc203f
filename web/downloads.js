/** The download of one file into a sink: resumed after an interruption, restarted if the file changed. */

import { errorOf } from "./rpc.js";

/** @typedef {import("./storage.js").RemoteFile} RemoteFile */
/** @typedef {import("./storage.js").Sink} Sink */

const ATTEMPTS = 5; // in a row without progress
export const SMALL_FILE = 64 << 20; // bytes of a configuration, an index or a tokenizer's file, as in Python
const MOST_SHOWN = 120; // characters
const PIECE = 1 << 20; // bytes in memory at a time
const PAUSE = 250; // milliseconds before the second attempt; doubled for each further one

/** The file at the address has changed since the download began. */
export class FileChanged extends Error {}

class ConnectionCut extends Error {
  /** @param {Error} [reason] what the server answered, if it did */
  constructor(reason = undefined) {
    super("", { cause: reason });
  }
}

/** @param {string} message */
export const presetError = (message) => errorOf({ name: "PresetError", message });
/** @param {string} message */
export const weightsError = (message) => errorOf({ name: "WeightsError", message });

/**
 * fetch() with a readable error.
 *
 * @param {string} url @param {RequestInit} init
 */
export async function reach(url, init) {
  try {
    return await fetch(url, { cache: "no-store", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    const { host } = new URL(url);
    throw presetError(
      `Can't reach ${host}. Are you offline? (If not, the server does not allow pages of ` +
        `${location.host} to read ${url}.) You can also open a local folder.`,
    );
  }
}

/** A value as text for a message, shortened. @param {unknown} value */
export function shown(value) {
  const text = String(value);
  return text.length <= MOST_SHOWN ? text : `${text.slice(0, MOST_SHOWN - 3)}...`;
}

/**
 * The text of a response. One that is too large for a configuration, an index or a list is rejected
 * as soon as the limit is exceeded, whether or not its headers state its size.
 *
 * @param {Response} response @param {string} url
 */
export async function smallText(response, url) {
  requireSmall(Number(response.headers.get("Content-Length") ?? 0), url);
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let [text, bytes] = ["", 0];
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done || !value) return text + decoder.decode();
    bytes += value.byteLength;
    if (bytes > SMALL_FILE) await reader?.cancel();
    requireSmall(bytes, url);
    text += decoder.decode(value, { stream: true });
  }
}

/** Throws if a small file is above the limit of its kind. @param {number} bytes @param {string} where */
export function requireSmall(bytes, where) {
  if (bytes <= SMALL_FILE) return;
  throw weightsError(
    `${shown(where)}: ${bytes} bytes is above the limit of ${SMALL_FILE} for a configuration, an index or a tokenizer's file`,
  );
}

/** Why a response cannot be used, in one sentence. @param {Response} response @param {string} url */
export function refusal(response, url) {
  const { status } = response;
  if (status === 429 || status >= 500) {
    const seconds = /^\d{1,5}$/.exec(response.headers.get("Retry-After") ?? "")?.[0];
    const when = seconds ? `in ${seconds} seconds` : "in a few minutes";
    const what = status === 429 ? "too many requests" : "server error";
    return presetError(`${url}: the server responded with status ${status} (${what}); try again ${when}`);
  }
  if (status === 401 || status === 403) {
    return presetError(`${url}: access denied (status ${status}). The repository may be gated, private or misspelt`);
  }
  return presetError(
    status === 404 ? `${url}: no such file` : `${url}: the server responded with status ${status}`,
  );
}

/**
 * Size and version of a remote file, from its headers; null if there is none.
 *
 * @param {string} url @param {string} name @param {AbortSignal} [signal]
 * @returns {Promise<RemoteFile | null>}
 */
export async function probe(url, name, signal) {
  // Responses to range requests are uncompressed, so their length is the file's.
  const head = await reach(url, { method: "HEAD", headers: { Range: "bytes=0-" }, signal });
  if (head.status === 404 || isWebPage(head)) return null;
  const bytes = head.ok ? Number(head.headers.get("X-Linked-Size") ?? lengthOf(head)) : NaN;
  if (Number.isSafeInteger(bytes)) return { name, url, bytes, ...validatorsOf(head) };
  const start = await reach(url, { headers: { Range: "bytes=0-" }, signal });
  await start.body?.cancel();
  if (start.status === 404) return null;
  if (!start.ok) throw refusal(start, url);
  const length = lengthOf(start);
  if (!length) throw presetError(`${url}: the server does not state the size of this file`);
  return { name, url, bytes: Number(length), ...validatorsOf(start) };
}

/**
 * The size of a file after a request for all of its bytes. Other origins hide Content-Range unless
 * they expose it, and never Content-Length.
 *
 * @param {Response} response
 */
function lengthOf({ headers }) {
  const [, total] = /\/(\d+)$/.exec(headers.get("Content-Range") ?? "") ?? [];
  return total ?? (headers.get("Content-Encoding") ? undefined : (headers.get("Content-Length") ?? undefined));
}

/** @param {Response} response */
function validatorsOf({ headers }) {
  const etag = headers.get("X-Linked-Etag") ?? headers.get("ETag") ?? undefined;
  const [, sha256] = /^"?([0-9a-f]{64})"?$/.exec(etag ?? "") ?? [];
  return { etag: headers.get("ETag") ?? undefined, date: headers.get("Last-Modified") ?? undefined, sha256 };
}

/** @param {Response} response */
const isWebPage = ({ headers }) => /^(text\/html|application\/xhtml)/.test(headers.get("Content-Type") ?? "");

/**
 * Downloads the rest of a file into its sink.
 *
 * An interrupted download resumes by Range, with If-Range unless a pinned address or a hash that is
 * checked afterwards proves the contents. Throws FileChanged if the file has changed, PresetError if
 * it is unavailable.
 *
 * @param {RemoteFile} file @param {Sink} sink
 * @param {{signal?: AbortSignal, onBytes?: () => void}} options `onBytes` is called after each change
 */
export async function download(file, sink, { signal, onBytes = () => {} }) {
  if (sink.size > file.bytes) sink.truncate();
  let failures = 0;
  let best = sink.size; // a download that restarts again and again makes no progress
  while (sink.size < file.bytes) {
    try {
      await attempt(file, sink, signal, onBytes);
    } catch (error) {
      if (!(error instanceof ConnectionCut)) throw error;
      failures = sink.size > best ? 0 : failures + 1;
      best = Math.max(best, sink.size);
      if (failures === ATTEMPTS && error.cause) throw error.cause;
      if (failures === ATTEMPTS) {
        throw presetError(
          `${file.name}: the connection broke at ${Math.floor((100 * sink.size) / file.bytes)} % and ` +
            "could not be resumed (offline?). Load again later to continue from there",
        );
      }
      await pause(failures ? PAUSE * 2 ** (failures - 1) : 0, signal);
    }
  }
}

/** @param {RemoteFile} file @param {Sink} sink @param {AbortSignal | undefined} signal @param {() => void} onBytes */
async function attempt(file, sink, signal, onBytes) {
  const validator = file.etag?.startsWith('"') ? file.etag : file.date; // a weak ETag proves nothing
  const proved = file.pinned || file.sha256 !== undefined;
  if (!proved && !validator) sink.truncate();
  const condition = sink.size && !proved ? validator : undefined;
  const response = await ask(file, sink.size, condition, signal);
  await place(response, file, sink);
  onBytes();
  await pour(response, file, sink, signal, onBytes);
}

/**
 * The response to a request for the rest of a file. If-Range to another origin needs a CORS
 * preflight, which few servers allow: without it, `place` compares the response's own headers.
 *
 * @param {RemoteFile} file @param {number} start @param {string | undefined} condition
 * @param {AbortSignal} [signal] @returns {Promise<Response>}
 */
async function ask(file, start, condition, signal) {
  /** @type {Record<string, string>} */
  const headers = { Range: `bytes=${start}-` };
  if (condition) headers["If-Range"] = condition;
  try {
    return await fetch(file.url, { headers, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    const elsewhere = new URL(file.url).origin !== location.origin;
    if (condition && elsewhere) return ask(file, start, undefined, signal);
    throw new ConnectionCut();
  }
}

/**
 * Checks that the response continues the sink's bytes; empties the sink if it starts from 0.
 *
 * @param {Response} response @param {RemoteFile} file @param {Sink} sink
 */
async function place(response, file, sink) {
  const { status } = response;
  if (status >= 500 || status === 429) throw new ConnectionCut(refusal(response, file.url)); // a pause may help
  if (isWebPage(response)) {
    throw weightsError(
      `${file.url}: this is a web page, not ${file.name}; check the address and your access, then download it again`,
    );
  }
  if (status === 416) {
    sink.truncate();
    throw new FileChanged();
  }
  if (!response.ok) throw refusal(response, file.url);
  if (status === 200) sink.truncate();
  if (isOther(response, file, sink.size)) {
    await response.body?.cancel();
    throw new FileChanged();
  }
}

/** Whether the headers of a response show another file, or another range. @param {Response} response @param {RemoteFile} file @param {number} size */
function isOther({ status, headers }, file, size) {
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+)/.exec(headers.get("Content-Range") ?? "") ?? [];
  if (total) return Number(start) !== size || Number(total) !== file.bytes || isNewer(headers, file);
  const length = status === 206 ? headers.get("Content-Length") : null;
  return (length !== null && Number(length) !== file.bytes - size) || isNewer(headers, file);
}

/** @param {Headers} headers @param {RemoteFile} file */
function isNewer(headers, { etag, date, pinned }) {
  if (pinned) return false;
  const [now, at] = [headers.get("ETag"), headers.get("Last-Modified")];
  if (etag && now) return now !== etag;
  return !!date && !!at && at !== date;
}

/** @param {Response} response @param {RemoteFile} file @param {Sink} sink @param {AbortSignal | undefined} signal @param {() => void} onBytes */
async function pour(response, file, sink, signal, onBytes) {
  const { read, cancel } = reading(/** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body));
  try {
    for (;;) {
      const { done, value } = await read().catch((error) => {
        if (signal?.aborted) throw error;
        throw new ConnectionCut();
      });
      if (done || !value) break;
      if (sink.size + value.byteLength > file.bytes) throw new FileChanged();
      sink.write(value);
      onBytes();
    }
  } catch (error) {
    await cancel().catch(() => {});
    throw error;
  }
  if (sink.size < file.bytes) throw new ConnectionCut();
}

/**
 * Reads a stream through one reused buffer (BYOB), where the browser supports that: new buffers would
 * pile up until the garbage collector runs.
 *
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 * @returns {{read: () => Promise<{done: boolean, value?: Uint8Array<ArrayBuffer>}>, cancel: () => Promise<void>}}
 */
function reading(stream) {
  let reader;
  try {
    reader = stream.getReader({ mode: "byob" });
  } catch {
    const plain = stream.getReader();
    return { read: () => plain.read(), cancel: () => plain.cancel() };
  }
  const own = reader;
  let memory = new ArrayBuffer(PIECE);
  const read = async () => {
    const { done, value } = await own.read(new Uint8Array(memory));
    if (value) memory = value.buffer;
    return { done, value };
  };
  return { read, cancel: () => own.cancel() };
}

/** @param {number} milliseconds @param {AbortSignal} [signal] @returns {Promise<void>} */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
