/**
 * The store of models in the browser (the origin private file system), one directory per model:
 *
 *     gpt2-wgpu-models/<hash of the id>/model.json     the record: see Stored
 *                                      /<hash of a version>.<name>
 *
 * A file's name contains the version of its contents (SHA-256, ETag or date), so that parts of
 * different versions are never mixed. model.json lists the complete files; it is replaced atomically
 * after the last byte of a new version, and only then is the old version deleted. Works in workers
 * only (createSyncAccessHandle).
 */

import { errorOf } from "./rpc.js";

/**
 * @typedef {{name: string, url: string, bytes: number, sha256?: string, etag?: string, date?: string, pinned?: boolean}} RemoteFile
 * A file to download: `pinned` when its address never gives other bytes.
 * @typedef {{name: string, bytes: number, stored: string}} StoredFile
 * @typedef {{id: string, name: string, savedAt: string, files: StoredFile[] | null, pending: StoredFile[] | null}} Stored
 * `files` are complete, `pending` on their way.
 */

const ROOM = "gpt2-wgpu-models";
const RECORD = "model.json";
const DIRECTORY = /^[0-9a-f]{16}$/; // no model's id looks like this

/** @param {string} text */
async function shortHash(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest, 0, 8)].map((x) => x.toString(16).padStart(2, "0")).join("");
}

/** Where the bytes of one download go. @typedef {{size: number, write: (chunk: Uint8Array<ArrayBuffer>) => void, truncate: () => void, close: () => void, blob: () => Promise<Blob>}} Sink */

/** A sink in memory. @implements {Sink} */
export class MemorySink {
  /** @type {Blob[]} */
  #parts = [];
  size = 0;

  /** @param {Uint8Array<ArrayBuffer>} chunk */
  write(chunk) {
    this.#parts.push(new Blob([chunk])); // a Blob's bytes are outside this thread's heap
    this.size += chunk.byteLength;
  }

  truncate() {
    this.#parts = [];
    this.size = 0;
  }

  close() {}

  async blob() {
    return new Blob(this.#parts);
  }
}

/** A sink that appends to a file. @implements {Sink} */
class FileSink {
  /** @param {FileSystemFileHandle} file @param {FileSystemSyncAccessHandle} access */
  constructor(file, access) {
    this.file = file;
    this.access = access;
    this.size = access.getSize();
  }

  /** @param {Uint8Array<ArrayBuffer>} chunk */
  write(chunk) {
    for (let rest = chunk; rest.byteLength; ) {
      const written = this.access.write(rest, { at: this.size });
      // Chromium does not throw if the storage is full: it returns a negative number as unsigned.
      if (!(written > 0 && written <= rest.byteLength)) throw new DOMException("", "QuotaExceededError");
      this.size += written;
      rest = rest.subarray(written);
    }
  }

  truncate() {
    this.access.truncate(0);
    this.size = 0;
  }

  close() {
    try {
      this.access.flush();
    } finally {
      this.access.close(); // else it cannot be opened again
    }
  }

  blob() {
    return this.file.getFile();
  }
}

export class ModelStore {
  /** @param {FileSystemDirectoryHandle} room */
  constructor(room) {
    this.room = room;
  }

  /** The store; null if the browser has none (private windows, insecure pages). */
  static async open() {
    try {
      const root = await navigator.storage.getDirectory();
      return new ModelStore(await root.getDirectoryHandle(ROOM, { create: true }));
    } catch {
      return null;
    }
  }

  /** @param {string} id @param {boolean} [create] */
  async #directory(id, create = false) {
    return this.room.getDirectoryHandle(await shortHash(id), { create });
  }

  /** @param {string} id @returns {Promise<Stored | null>} */
  async find(id) {
    try {
      return await read(await this.#directory(id));
    } catch {
      return null; // never stored, interrupted before its first record, or damaged
    }
  }

  /** Every model, complete or not, by name. */
  async list() {
    const found = [];
    for await (const directory of this.room.values()) {
      if (directory.kind !== "directory") continue;
      const stored = await read(directory).catch(() => damaged(directory));
      const { id, name, savedAt, files, pending } = stored;
      const total = (files ?? pending ?? []).reduce((sum, file) => sum + file.bytes, 0);
      let bytes = 0;
      for await (const file of directory.values()) {
        if (file.kind === "file" && file.name !== RECORD) bytes += (await file.getFile()).size;
      }
      if (!bytes && !files && !pending) continue; // interrupted before its first record
      found.push({ id, name, bytes, total, complete: files !== null, savedAt });
    }
    return found.sort((a, b) => a.name.localeCompare(b.name));
  }

  /** Frees what a model takes. @param {string} id */
  async remove(id) {
    const directory = DIRECTORY.test(id) ? id : await shortHash(id);
    await this.room.removeEntry(directory, { recursive: true }).catch((error) => {
      if (error.name !== "NotFoundError") throw busy(error, id);
    });
  }

  /** The complete files of a model. @param {Stored} stored @returns {Promise<Map<string, Blob>>} */
  async files({ id, files }) {
    const directory = await this.#directory(id);
    const found = new Map();
    for (const { name, stored, bytes } of files ?? []) {
      const blob = await (await directory.getFileHandle(stored)).getFile();
      if (blob.size !== bytes) throw errorOf({ name: "WeightsError", message: `${id}: the stored ${name} has ${blob.size} bytes instead of ${bytes}; delete the model and load it again` });
      found.set(name, blob);
    }
    return found;
  }

  /** Free bytes. */
  async available() {
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    return Math.max(0, quota - usage);
  }

  /**
   * Prepares for a version: keeps its stored parts, deletes those of others.
   *
   * @param {string} id @param {string} name @param {RemoteFile[]} files
   */
  async begin(id, name, files) {
    const directory = await this.#directory(id, true);
    const old = await this.find(id);
    const pending = await Promise.all(
      files.map(async (file) => ({
        name: file.name,
        bytes: file.bytes,
        stored: await storedName(file),
      })),
    );
    const stored = { id, name, savedAt: new Date().toISOString(), files: old?.files ?? null, pending };
    await write(directory, stored);
    await this.#sweep(directory, stored);
  }

  /** Whether the complete files are of just these versions. @param {Stored} stored @param {RemoteFile[]} files */
  async holds(stored, files) {
    const names = await Promise.all(files.map(storedName));
    const have = new Set(stored.files?.map((file) => file.stored));
    return names.length === have.size && names.every((name) => have.has(name));
  }

  /** Bytes of the pending version that are not here yet. @param {string} id */
  async missing(id) {
    const directory = await this.#directory(id);
    let bytes = 0;
    for (const file of (await read(directory)).pending ?? []) {
      const handle = await directory.getFileHandle(file.stored).catch(() => null);
      bytes += file.bytes - ((await handle?.getFile())?.size ?? 0);
    }
    return bytes;
  }

  /** The sink of one pending file. @param {string} id @param {string} name */
  async sink(id, name) {
    const directory = await this.#directory(id);
    const pending = (await read(directory)).pending?.find((file) => file.name === name);
    if (!pending) throw new Error(`${name} of ${id} is not awaited`);
    const file = await directory.getFileHandle(pending.stored, { create: true });
    const access = await file.createSyncAccessHandle().catch((error) => {
      throw busy(error, id);
    });
    return new FileSink(file, access);
  }

  /** The new version is whole: it takes the place of the old one. @param {string} id */
  async commit(id) {
    const directory = await this.#directory(id);
    const { pending, ...rest } = await read(directory);
    if (!pending) return; // another tab was first
    const stored = { ...rest, files: pending, pending: null, savedAt: new Date().toISOString() };
    await write(directory, stored);
    await this.#sweep(directory, stored);
  }

  /** The new version is worth nothing: only what was complete stays. @param {string} id */
  async discard(id) {
    const stored = await this.find(id);
    if (!stored?.files) return this.remove(id);
    const directory = await this.#directory(id);
    const kept = { ...stored, pending: null };
    await write(directory, kept);
    await this.#sweep(directory, kept);
  }

  /** Deletes files of no version. @param {FileSystemDirectoryHandle} directory @param {Stored} stored */
  async #sweep(directory, { files, pending }) {
    const kept = new Set([RECORD, ...[...(files ?? []), ...(pending ?? [])].map((f) => f.stored)]);
    const stale = [];
    for await (const name of directory.keys()) if (!kept.has(name)) stale.push(name);
    for (const name of stale) await directory.removeEntry(name);
  }
}

/** @param {RemoteFile} file */
const storedName = async (file) => `${await shortHash(versionOf(file))}.${file.name}`;

/** The identity of a file's contents. @param {RemoteFile} file */
function versionOf({ url, bytes, sha256, etag, date, pinned }) {
  if (sha256) return sha256;
  const validator = pinned ? url : (etag ?? date);
  return `${url} ${bytes} ${validator ?? crypto.randomUUID()}`; // unknown version: parts cannot be reused
}

/** @param {FileSystemDirectoryHandle} directory @returns {Promise<Stored>} */
async function read(directory) {
  const file = await (await directory.getFileHandle(RECORD)).getFile();
  return JSON.parse(await file.text());
}

/** A model whose record cannot be read, so that it can be seen and deleted. @param {FileSystemDirectoryHandle} directory @returns {Stored} */
function damaged({ name }) {
  return { id: name, name: "damaged model", savedAt: new Date(0).toISOString(), files: null, pending: null };
}

/** @param {FileSystemDirectoryHandle} directory @param {Stored} stored */
async function write(directory, stored) {
  const handle = await directory.getFileHandle(RECORD, { create: true });
  const stream = await handle.createWritable(); // writes a temporary file and swaps on close
  await stream.write(JSON.stringify(stored));
  await stream.close();
}

/** @param {any} error @param {string} id */
function busy(error, id) {
  if (error.name !== "NoModificationAllowedError") return error;
  return errorOf({ name: "BusyError", message: `${id} is being downloaded or deleted in another tab` });
}
