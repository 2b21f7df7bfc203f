/** The files of a model: from the browser's storage, or downloaded and then stored. */

import { FileChanged, download, weightsError } from "./downloads.js";
import { aborted, errorOf, unlessAborted } from "./rpc.js";
import { sha256 } from "./sha256.js";
import { onThisSite, parse } from "./sources.js";
import { MemorySink, ModelStore } from "./storage.js";

/** @typedef {import("./storage.js").RemoteFile} RemoteFile */
/** @typedef {import("./sources.js").RemoteSource} RemoteSource */
/** @typedef {{phase: "download" | "verify", bytes: number, total: number, cached?: boolean, warning?: string}} Progress */
/**
 * @typedef {{signal?: AbortSignal, siteTurn?: Promise<unknown>, onProgress?: (progress: Progress) => void}} Watch
 * `siteTurn`: when the download of a model of the site may begin; that of others begins at once.
 */
/**
 * @typedef {{id?: string, name: string, files: Map<string, Blob>, cached: boolean, stored: boolean, warning?: string, commit: () => Promise<void>, discard: () => Promise<void>, release: () => void}} Obtained
 * Call `commit` once the files have loaded as a model, which marks it complete and `stored`, else
 * `discard`. Until `release`, no other tab can download or delete the model.
 */

const nothing = async () => {};
const unlocked = { commit: nothing, discard: nothing, release: () => {} };

/**
 * Downloads of this worker by the model's id, until they are released: then what others can use
 * of one that was not stored, else null. @type {Map<string, Promise<Obtained | null>>}
 */
const downloads = new Map();

/** @param {any} source @param {any} options @param {AbortSignal} [signal] */
export async function size(source, options, signal) {
  const found = await parse(source, options);
  if (found.kind === "files") {
    const files = [...found.files].map(([name, { size }]) => ({ name, bytes: size }));
    return { ...summed(files), cached: false };
  }
  const store = await ModelStore.open();
  const stored = await store?.find(found.id);
  if (stored?.files && found.kind !== "site") return { ...summed(stored.files), cached: true };
  const files = await found.plan(signal);
  return { ...summed(files), cached: !!store && !!stored && (await store.holds(stored, files)) };
}

/** The models published with this site. */
export async function offered() {
  const sources = await onThisSite();
  const sized = sources.map(async ({ source, name }) => ({ source, name, bytes: (await size(source, {})).bytes }));
  const found = await Promise.allSettled(sized); // a folder that holds no model is left out
  return found.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
}

export async function list() {
  return (await (await ModelStore.open())?.list()) ?? [];
}

/** @param {string} id */
export async function remove(id) {
  const release = await lock(id);
  try {
    await (await ModelStore.open())?.remove(id);
  } finally {
    release();
  }
}

/** @param {{name: string, bytes: number}[]} files */
function summed(files) {
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return { bytes, files: files.map(({ name, bytes }) => ({ name, bytes })) };
}

/**
 * Calls for one model at the same time share a download; if it is cancelled, the next goes on with it.
 *
 * @param {any} source
 * @param {{hub?: string, update?: boolean}} options `update`: look for a newer version of a stored
 *     model; if there is none or the server is unreachable, the stored one is used
 * @param {Watch} watch
 * @returns {Promise<Obtained>}
 */
export async function obtain(source, { update = false, ...options }, watch) {
  const found = await parse(source, options);
  if (found.kind === "files") {
    return { ...found, cached: true, stored: false, ...unlocked };
  }
  const { id } = found;
  for (let other; (other = downloads.get(id)); ) {
    const unstored = await (watch.signal ? unlessAborted(other, watch.signal) : other);
    if (unstored) return { ...unstored, cached: true, ...unlocked };
  }
  /** @type {PromiseWithResolvers<Obtained | null>} */
  const { promise, resolve } = Promise.withResolvers();
  downloads.set(id, promise);
  const end = (/** @type {Obtained | null} */ unstored) => {
    downloads.delete(id);
    resolve(unstored);
  };
  try {
    const obtained = await obtainAlone(found, update, watch);
    if (obtained.cached) end(null);
    const { release } = obtained;
    obtained.release = () => {
      release();
      if (!obtained.cached) end(obtained.stored ? null : obtained);
    };
    return obtained;
  } catch (error) {
    end(null);
    throw error;
  }
}

/** @param {RemoteSource} found @param {boolean} update @param {Watch} watch @returns {Promise<Obtained>} */
async function obtainAlone(found, update, watch) {
  const store = await ModelStore.open();
  const stored = await store?.find(found.id);
  if (store && stored?.files) {
    const have = async () => ({ id: found.id, name: found.name, files: await store.files(stored), cached: true, stored: true, ...unlocked });
    if (!update && found.kind !== "site") return have();
    const plan = await found.plan(watch.signal).catch((error) => {
      if (watch.signal?.aborted) throw error;
      return null; // offline
    });
    if (!plan || (await store.holds(stored, plan))) return have();
  }
  const release = await lock(found.id);
  try {
    return { ...(await fetchAll(found, store, watch)), id: found.id, release };
  } catch (error) {
    release();
    throw error;
  }
}

/**
 * Locks a model against other tabs; returns the function that unlocks it.
 *
 * @param {string} id @returns {Promise<() => void>}
 */
function lock(id) {
  if (!navigator.locks) return Promise.resolve(() => {});
  return new Promise((resolve, reject) => {
    const held = navigator.locks.request(`gpt2-wgpu ${id}`, { ifAvailable: true }, (lock) => {
      if (lock) return new Promise((release) => resolve(() => release(undefined)));
      throw errorOf({ name: "BusyError", message: `${id} is being downloaded or deleted, perhaps in another tab. Wait for its end` });
    });
    held.catch(reject);
  });
}

/** @typedef {Omit<Obtained, "release">} Fetched */

/** @param {RemoteSource} source @param {ModelStore | null} store @param {Watch} watch @returns {Promise<Fetched>} */
async function fetchAll(source, store, watch) {
  const plan = await source.plan(watch.signal);
  const { siteTurn, signal } = watch;
  if (source.kind === "site" && siteTurn) await (signal ? unlessAborted(siteTurn, signal) : siteTurn);
  let warning;
  if (store) {
    try {
      return await intoStore(source, plan, store, watch);
    } catch (error) {
      if (error instanceof FileChanged) return fetchAgain(source, store, watch);
      if (/** @type {Error} */ (error).name !== "QuotaExceededError") throw error;
      warning = await outOfRoom(plan, store, source.id);
    }
  } else {
    warning = "Not saved: this browser stores no files for this site (a private window?). The model works until this page is closed.";
  }
  return intoMemory(source, plan, warning, watch);
}

/** One more attempt with the server's current files; throws if they change again. @param {RemoteSource} source @param {ModelStore} store @param {Watch} watch */
async function fetchAgain(source, store, watch) {
  try {
    return await intoStore(source, await source.plan(watch.signal), store, watch);
  } catch (error) {
    if (!(error instanceof FileChanged)) throw error;
    throw weightsError(`${source.name}: its files change while they are downloaded; load it again later`);
  }
}

/** @param {RemoteSource} source @param {RemoteFile[]} plan @param {ModelStore} store @param {Watch} watch @returns {Promise<Fetched>} */
async function intoStore({ id, name }, plan, store, watch) {
  await store.begin(id, name, plan);
  const missing = await store.missing(id);
  if (missing > (await store.available())) throw new DOMException("", "QuotaExceededError");
  const report = reporter(plan, watch);
  const files = new Map();
  for (const file of plan) {
    const sink = await store.sink(id, file.name);
    try {
      await download(file, sink, { signal: watch.signal, onBytes: () => report("download", file, sink.size) });
    } finally {
      sink.close();
    }
    report("download", file, file.bytes);
    files.set(file.name, await sink.blob());
  }
  await verify(plan, files, watch, () => store.discard(id));
  return { name, files, cached: false, stored: true, commit: () => store.commit(id), discard: () => store.discard(id) };
}

/** @param {RemoteSource} source @param {RemoteFile[]} plan @param {string} warning @param {Watch} watch @returns {Promise<Fetched>} */
async function intoMemory({ name }, plan, warning, watch) {
  const report = reporter(plan, watch, warning);
  const files = new Map();
  for (const file of plan) {
    const sink = new MemorySink();
    await download(file, sink, { signal: watch.signal, onBytes: () => report("download", file, sink.size) });
    files.set(file.name, await sink.blob());
  }
  await verify(plan, files, watch, nothing);
  return { name, files, cached: false, stored: false, warning, commit: nothing, discard: nothing };
}

/** @param {RemoteFile[]} plan @param {ModelStore} store @param {string} id */
async function outOfRoom(plan, store, id) {
  const megabytes = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const needed = summed(plan).bytes;
  const written = needed - (await store.missing(id));
  await store.discard(id);
  const available = await store.available();
  // Some browsers overstate the room, so that sites cannot learn how full the disk is.
  const room = available < needed ? `${megabytes(available)} available` : `full after ${megabytes(written)}`;
  return `Not saved: needs ${megabytes(needed)} of browser storage, ${room}. The model works until this page is closed.`;
}

/** @param {RemoteFile[]} plan @param {Map<string, Blob>} files @param {Watch} watch @param {() => Promise<void>} discard */
async function verify(plan, files, { signal, onProgress }, discard) {
  const known = plan.filter((file) => file.sha256);
  const total = summed(known).bytes;
  let bytes = 0;
  for (const file of known) {
    const blob = /** @type {Blob} */ (files.get(file.name));
    const onBytes = (/** @type {number} */ more) => onProgress?.({ phase: "verify", bytes: (bytes += more), total });
    const found = await sha256(blob, onBytes, signal);
    if (found === file.sha256) continue;
    await discard();
    throw weightsError(`${file.name}: SHA-256 ${found} instead of ${file.sha256}. The damaged download was deleted; load the model again`);
  }
}

/** @param {RemoteFile[]} plan @param {Watch} watch @param {string} [warning] */
function reporter(plan, { onProgress, signal }, warning) {
  const total = summed(plan).bytes;
  /** @type {Map<string, number>} */
  const done = new Map();
  return (/** @type {"download"} */ phase, /** @type {RemoteFile} */ file, /** @type {number} */ bytes) => {
    if (signal?.aborted) throw aborted();
    done.set(file.name, bytes);
    const sum = [...done.values()].reduce((a, b) => a + b, 0);
    onProgress?.({ phase, bytes: sum, total, warning });
  };
}
