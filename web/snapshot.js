/**
 * Python's memory with the package imported, as the build found it in Chromium (scripts/snapshot.py):
 * starting from it takes a fraction of starting. Its interface in Pyodide is private, so whatever goes
 * wrong with it, Python starts without.
 */

const PYODIDE = new URL("../pyodide/", import.meta.url);

/**
 * The snapshot for these packages, where it lies here already: with the site, kept for offline use.
 * Who comes for the first time does not wait for it: Python starts while the model is downloaded, and
 * 7 MB more would only delay that.
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
    return null; // this browser keeps nothing here
  }
}

/** Whether this is such a browser as it was taken in: what is in the memory depends on it. */
function fits() {
  const { brands = [] } = /** @type {any} */ (navigator).userAgentData ?? {};
  const chromium = brands.some((/** @type {{brand: string}} */ { brand }) => brand === "Chromium");
  return chromium && "Suspending" in WebAssembly;
}

/** Rejected where its checksum is wrong. @param {ReadableStream<Uint8Array<ArrayBuffer>>} packed */
function unpacked(packed) {
  const memory = new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  memory.catch(() => {}); // whoever awaits it is told; until then it is nobody's error
  return memory;
}

/** What failed once is not tried again. @param {string} url */
async function forget(url) {
  try {
    for (const name of await caches.keys()) await (await caches.open(name)).delete(url);
  } catch {
    // it will fail again, and Python will start without it again
  }
}
