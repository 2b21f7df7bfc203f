// The library's downloads without its Python: obtains a model, and reports what its files hold.

import { download } from "../web/downloads.js";
import * as models from "../web/models.js";
import { serve } from "../web/rpc.js";
import { sha256 } from "../web/sha256.js";
import { MemorySink } from "../web/storage.js";

let held = null;

serve({
  async obtain({ signal, emit }, source, options, keep = true) {
    const obtained = await models.obtain(source, options, { signal, onProgress: emit });
    const { cached, stored, name, warning } = obtained;
    const hashes = {};
    for (const [file, blob] of obtained.files) hashes[file] = await sha256(blob);
    await (keep ? obtained.commit() : obtained.discard());
    obtained.release();
    return { cached, stored, name, warning, hashes };
  },
  // Obtains a model, and holds it as one does that waits for Python; `finish` ends that.
  async hold({ signal }, source) {
    held = await models.obtain(source, {}, { signal });
  },
  async finish() {
    await held.commit();
    held.release();
  },
  // From now on the storage takes no more than so many bytes at a time; below zero: it answers as a
  // full one does in Chromium.
  takeAtMost(_, bytes) {
    const { write } = FileSystemSyncAccessHandle.prototype;
    FileSystemSyncAccessHandle.prototype.write = function (chunk, options) {
      return bytes < 0 ? 2 ** 32 + bytes : write.call(this, chunk.subarray(0, bytes), options);
    };
  },
  // From now on the storage reports so much room.
  tellOfRoom(_, quota) {
    StorageManager.prototype.estimate = async () => ({ quota, usage: 0 });
  },
  async download({ signal }, file) {
    const sink = new MemorySink();
    await download(file, sink, { signal });
    return sha256(await sink.blob());
  },
  async damage() {
    const room = await (await navigator.storage.getDirectory()).getDirectoryHandle("gpt2-wgpu-models");
    for await (const directory of room.values()) {
      const stream = await (await directory.getFileHandle("model.json")).createWritable();
      await stream.write("{");
      await stream.close();
    }
  },
  size: ({ signal }, source, options = {}) => models.size(source, options, signal),
  offered: () => models.offered(),
  list: () => models.list(),
  remove: (_, id) => models.remove(id),
  async files() {
    const found = {};
    const room = await (await navigator.storage.getDirectory()).getDirectoryHandle("gpt2-wgpu-models");
    for await (const directory of room.values()) {
      for await (const file of directory.values()) found[file.name] = (await file.getFile()).size;
    }
    return found;
  },
  sha256: (_, parts) => sha256(new Blob(parts)),
});
