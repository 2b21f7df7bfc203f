/**
 * The worker of downloads. It is started by the library's worker (remote-models.js), whose own thread
 * is blocked while Python starts.
 */

import * as models from "./models.js";
import { serve } from "./rpc.js";

/** By the caller's number of it: what was obtained and not released yet. @type {Map<number, models.Obtained>} */
const held = new Map();
/** By the same: begins the download of a model of the site. @type {Map<number, () => void>} */
const turns = new Map();

/** @param {number} id */
const heldOf = (id) => /** @type {models.Obtained} */ (held.get(id));

serve({
  async obtain({ signal, emit }, id, source, options) {
    const siteTurn = new Promise((resolve) => turns.set(id, () => resolve(undefined)));
    try {
      const obtained = await models.obtain(source, options, { signal, siteTurn, onProgress: emit });
      held.set(id, obtained);
      const { name, files, cached, stored, warning } = obtained;
      return { id: obtained.id, name, files, cached, stored, warning };
    } finally {
      turns.delete(id);
    }
  },
  turn: (_, id) => turns.get(id)?.(),
  commit: (_, id) => heldOf(id).commit(),
  discard: (_, id) => heldOf(id).discard(),
  release(_, id, stored) {
    const obtained = heldOf(id);
    held.delete(id);
    obtained.stored = stored;
    obtained.release();
  },
});
