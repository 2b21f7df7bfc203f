/**
 * The snapshot of Python's memory with the package imported, taken in Chromium at build time
 * (scripts/snapshot.py), from which Python starts several times faster. The interface in Pyodide is
 * private, so on any error Python starts without it.
 */

const PYODIDE = new URL("../pyodide/", import.meta.url);
const PAGE = 65536; // bytes, of WebAssembly's memory

/**
 * The snapshot for these packages, if it is already stored with the site for offline use. The first
 * visit does not download it: Python starts while the model is downloaded, and 7 MB more would delay
 * that.
 *
 * @param {string} lock the lock file, which names the packages by their hashes, as its hash names the snapshot
 * @returns {Promise<{memory: Promise<ArrayBuffer>, forget: () => Promise<void>} | null>}
 */
export async function findSnapshot(lock) {
  if (!fits()) return null;
  try {
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lock));
    const hash = [...new Uint8Array(digest)].map((x) => x.toString(16).padStart(2, "0")).join("");
    const url = new URL(`snapshot-${hash.slice(0, 16)}.bin`, PYODIDE).href;
    const kept = await caches.match(url);
    return kept?.body ? { memory: unpacked(kept.body), forget: () => forget(url) } : null;
  } catch {
    return null; // no storage in this browser
  }
}

/**
 * The result of `load`, during which WebAssembly memory that is made has room for a snapshot of so many
 * bytes: Pyodide (314.0, prepareSnapshot) asks for it by a setting that its build ignores, and a larger
 * snapshot than the initial memory, 30 MB, would not fit.
 *
 * @template T @param {number} bytes @param {() => Promise<T>} load @returns {Promise<T>}
 */
export function withMemory(bytes, load) {
  return withInstances(({ exports }) => {
    const { memory } = /** @type {any} */ (exports);
    const missing = memory instanceof WebAssembly.Memory ? bytes - memory.buffer.byteLength : 0;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
  }, load);
}

/**
 * The result of `load`, during which `made` is called with each WebAssembly instance, before those who
 * asked for it go on.
 *
 * @template T @param {(instance: WebAssembly.Instance) => void} made @param {() => Promise<T>} load
 * @returns {Promise<T>}
 */
export async function withInstances(made, load) {
  const { instantiate, instantiateStreaming } = WebAssembly;
  const wrapped = (/** @type {Function} */ original) =>
    async (/** @type {any[]} */ ...args) => {
      const result = await original.apply(WebAssembly, args);
      made(result.instance ?? result);
      return result;
    };
  Object.assign(WebAssembly, {
    instantiate: wrapped(instantiate),
    instantiateStreaming: wrapped(instantiateStreaming),
  });
  try {
    return await load();
  } finally {
    Object.assign(WebAssembly, { instantiate, instantiateStreaming });
  }
}

/** Whether this browser is of the kind in which the snapshot was taken, which it depends on. */
function fits() {
  const { brands = [] } = /** @type {any} */ (navigator).userAgentData ?? {};
  const chromium = brands.some((/** @type {{brand: string}} */ { brand }) => brand === "Chromium");
  return chromium && "Suspending" in WebAssembly;
}

/** Rejected where its checksum is wrong. @param {ReadableStream<Uint8Array<ArrayBuffer>>} packed */
function unpacked(packed) {
  const memory = new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  memory.catch(() => {}); // not an unhandled rejection: the caller awaits it later
  return memory;
}

/** What failed once is not tried again. @param {string} url */
async function forget(url) {
  try {
    for (const name of await caches.keys()) await (await caches.open(name)).delete(url);
  } catch {
    // it fails again at the next start, which then goes on without it
  }
}
