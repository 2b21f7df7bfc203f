// The library's downloads without its Python: obtains a model, and tells what its files hold.

import * as models from "../web/models.js";
import { serve } from "../web/rpc.js";
import { sha256 } from "../web/sha256.js";

serve({
  async obtain({ signal, emit }, source, options, keep = true) {
    const obtained = await models.obtain(source, options, { signal, onProgress: emit });
    const { cached, name, warning } = obtained;
    const hashes = {};
    for (const [file, blob] of obtained.files) hashes[file] = await sha256(blob);
    await (keep ? obtained.commit() : obtained.discard());
    return { cached, name, warning, hashes };
  },
  size: ({ signal }, source, options = {}) => models.size(source, options, signal),
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
