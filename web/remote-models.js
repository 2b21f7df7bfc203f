/** Downloads in a worker of their own (download-worker.js): they go on while Python blocks this thread. */

import { startWorker } from "./base.js";
import { Caller } from "./rpc.js";

const SCRIPT = "web/download-worker.js";

/** @typedef {import("./models.js").Obtained} Obtained */
/** @typedef {import("./models.js").Progress} Progress */

/** @type {Caller | null} */
let shared = null;
let next = 1;

function caller() {
  if (shared) return shared;
  const worker = startWorker(SCRIPT);
  const made = new Caller(worker, `${SCRIPT} of the library's folder could not be loaded`);
  made.onDeath = () => {
    worker.terminate();
    shared = null; // the next download starts a new one
  };
  shared = made;
  return made;
}

/**
 * `models.obtain` in the other worker. The download of a model of the site begins when `siteTurn` calls
 * the function that it is given.
 *
 * @param {any} source @param {{hub?: string, update?: boolean}} options
 * @param {{signal: AbortSignal, siteTurn: (begin: () => void) => void, onProgress: (progress: Progress) => void}} watch
 * @returns {Promise<Obtained>}
 */
export async function obtain(source, options, { signal, siteTurn, onProgress }) {
  const made = caller();
  const id = next++;
  const obtaining = made.call("obtain", [id, source, options], { signal, onEvent: onProgress });
  siteTurn(() => void made.call("turn", [id]).catch(() => {})); // the other call reports a worker that died
  /** @type {Obtained} */
  const obtained = {
    ...(await obtaining),
    commit: () => made.call("commit", [id]),
    discard: () => made.call("discard", [id]),
    release() {
      made.call("release", [id, obtained.stored]).catch(() => {}); // a worker that died holds no lock
    },
  };
  return obtained;
}
