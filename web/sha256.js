/** SHA-256 (FIPS 180-4) of a Blob, a piece at a time: crypto.subtle wants all bytes at once. */

const PIECE = 4 << 20;

/** The first 32 bits of the fractional parts of a root of each of the first primes. */
function rootsOfPrimes(/** @type {number} */ count, /** @type {number} */ root) {
  const found = [];
  for (let n = 2; found.length < count; n++) {
    let prime = true;
    for (let d = 2; d * d <= n; d++) prime &&= n % d !== 0;
    if (prime) found.push((n ** (1 / root) % 1) * 2 ** 32);
  }
  return Int32Array.from(found, (value) => value | 0);
}

const K = rootsOfPrimes(64, 3);
const START = rootsOfPrimes(8, 2);

/**
 * @param {Blob} blob
 * @param {(bytes: number) => void} [onBytes] called with the number of bytes hashed since the last call
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>} lower-case hexadecimal
 */
export async function sha256(blob, onBytes = () => {}, signal) {
  const state = START.slice();
  const schedule = new Int32Array(64);
  const whole = blob.size - (blob.size % 64);
  for (let at = 0; at < whole; at += PIECE) {
    signal?.throwIfAborted();
    const piece = await blob.slice(at, Math.min(at + PIECE, whole)).arrayBuffer();
    compress(state, schedule, piece);
    onBytes(piece.byteLength);
  }
  const rest = new Uint8Array(await blob.slice(whole).arrayBuffer());
  const padded = new Uint8Array(rest.length < 56 ? 64 : 128);
  padded.set(rest);
  padded[rest.length] = 0x80;
  new DataView(padded.buffer).setBigUint64(padded.length - 8, BigInt(blob.size) * 8n);
  compress(state, schedule, padded.buffer);
  onBytes(rest.length);
  return [...state].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

/** @param {Int32Array} state @param {Int32Array} w @param {ArrayBuffer} blocks of 64 bytes */
function compress(state, w, blocks) {
  const view = new DataView(blocks);
  let [h0, h1, h2, h3, h4, h5, h6, h7] = state;
  for (let at = 0; at < blocks.byteLength; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15];
      const y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, h] = [h0, h1, h2, h3, h4, h5, h6, h7];
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    h0 = (h0 + a) | 0;
    h1 = (h1 + b) | 0;
    h2 = (h2 + c) | 0;
    h3 = (h3 + d) | 0;
    h4 = (h4 + e) | 0;
    h5 = (h5 + f) | 0;
    h6 = (h6 + g) | 0;
    h7 = (h7 + h) | 0;
  }
  state.set([h0, h1, h2, h3, h4, h5, h6, h7]);
}
