// The last minute of a model's memory, as numbers. Knows nothing of the page.

/** @typedef {import("../gpt2.js").Memory} Memory */

export const KINDS = /** @type {const} */ (["weights", "cache", "workspace", "parameters", "staging", "pool"]);
const SPAN = { least: 10_000, most: 60_000 }; // milliseconds that the chart shows

/** @typedef {Record<typeof KINDS[number], number>} Bytes */

/** Bytes by kind, what the pool keeps for reuse included. @param {Memory} memory @returns {Bytes} */
export function bytesOf({ byKind, numBytesInGpu, numBytesAllocatedInGpu }) {
  return { ...byKind, pool: numBytesAllocatedInGpu - numBytesInGpu };
}

export class MemoryHistory {
  /** @type {{at: number, bytes: Bytes}[]} oldest first */
  #samples = [];
  /** Highest bytes so far: in use, and with the pool. */
  peaks = { used: 0, allocated: 0 };

  /** @param {Memory} memory @param {number} at milliseconds */
  push(memory, at) {
    this.#samples.push({ at, bytes: bytesOf(memory) });
    // (A device that replaces a lost one counts from zero; what is drawn of the time before stays.)
    const { peakBytes, numBytesAllocatedInGpu } = memory;
    this.peaks.used = Math.max(this.peaks.used, peakBytes);
    this.peaks.allocated = Math.max(this.peaks.allocated, this.peaks.used, numBytesAllocatedInGpu);
    // One sample older than the span stays: it says what was so when the span began.
    while (this.#samples.length > 1 && this.#samples[1].at < at - SPAN.most) this.#samples.shift();
  }

  /** Milliseconds from the left edge to `now`: all there is to show, up to a minute. @param {number} now */
  span(now) {
    const age = now - (this.#samples[0]?.at ?? now);
    return Math.min(SPAN.most, Math.max(SPAN.least, age));
  }

  /**
   * The outlines of the stacked bands as SVG path data, bottom to top.
   * @param {number} now milliseconds
   * @param {number} width
   * @param {number} height
   * @param {number} top bytes at the upper edge
   * @returns {string[]} one for each of KINDS
   */
  bands(now, width, height, top) {
    const span = this.span(now);
    const x = (/** @type {number} */ at) => Math.max(0, width * (1 - (now - at) / span));
    const y = (/** @type {number} */ bytes) => height * (1 - bytes / top);
    let floor = this.#samples.map(() => 0);
    return KINDS.map((kind) => {
      const ceiling = floor.map((below, i) => below + this.#samples[i].bytes[kind]);
      const path = `${this.#edge(ceiling, x, y, now)}${this.#edge(floor, x, y, now, true)}Z`;
      floor = ceiling;
      return path;
    });
  }

  /**
   * A staircase along `levels`: memory stays as it is until the next sample says otherwise.
   * @param {number[]} levels
   * @param {(at: number) => number} x
   * @param {(bytes: number) => number} y
   * @param {number} now
   * @param {boolean} [back] from right to left, as the lower edge of a band
   */
  #edge(levels, x, y, now, back = false) {
    const points = levels.flatMap((level, i) => {
      const end = this.#samples[i + 1]?.at ?? now;
      return [[x(this.#samples[i].at), y(level)], [x(end), y(level)]];
    });
    if (back) points.reverse();
    return points
      .map(([px, py], i) => `${i || back ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(2)}`)
      .join("");
  }
}
