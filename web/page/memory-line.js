// The memory line: live bytes by kind, buffers, tensors and peaks, as text and as a chart.

import { element, showBytes, within } from "./dom.js";
import { size } from "./format.js";
import { KINDS, MemoryHistory, bytesOf } from "./memory-history.js";
import { paced } from "./pace.js";

/** @typedef {import("../gpt2.js").Memory} Memory */

const WIDTH = 600; // of the chart's viewBox
const HEIGHT = 120;
const REST = 1000; // milliseconds between looks while nothing runs

const chart = element("memory-chart", SVGSVGElement);
const peakLine = element("memory-peak-line", SVGPathElement);
const peakLabel = element("memory-peak-label", HTMLElement);
const since = element("memory-since", HTMLElement);
const rows = element("memory-kinds", HTMLElement);
const bands = element("memory-bands", SVGGElement).children; // in the order of KINDS

const history = new MemoryHistory();

/** Takes a new sample; drawn at most ten times a second. */
export const showMemory = paced(100, (/** @type {Memory} */ memory) => {
  const now = performance.now();
  history.push(memory, now);
  if (document.hidden) return;
  drawNumbers(memory);
  drawChart(memory, now);
});

/**
 * Samples the memory of the model that `current` returns, once a second while the page is visible.
 * (While text is generated, the library reports samples more often.)
 * @param {() => import("../gpt2.js").GPT2 | null} current
 */
export function watchMemory(current) {
  const look = async () => {
    if (!document.hidden) await lookAtMemory(current());
    setTimeout(look, REST);
  };
  void look();
}

/** One look now. @param {import("../gpt2.js").GPT2 | null} lm */
export async function lookAtMemory(lm) {
  if (!lm) return;
  try {
    showMemory(await lm.memory());
  } catch {
    // disposed meanwhile, or its worker ended: shown elsewhere
  }
}

/** @param {Memory} memory */
function drawNumbers(memory) {
  const bytes = bytesOf(memory);
  const { numBytesInGpu } = memory;
  const { used, allocated } = history.peaks;
  showBytes(element("memory-live", HTMLDataElement), numBytesInGpu, size(numBytesInGpu));
  showBytes(element("memory-peak", HTMLDataElement), used, size(used));
  showBytes(element("memory-peak-pooled", HTMLDataElement), allocated, size(allocated));
  for (const kind of KINDS) {
    showBytes(within(rows, `.${kind} data`, HTMLDataElement), bytes[kind], size(bytes[kind]));
  }
  element("memory-buffers", HTMLElement).textContent = memory.numBuffers.toLocaleString("en");
  element("memory-tensors", HTMLElement).textContent = memory.numTensors.toLocaleString("en");
}

/** @param {Memory} memory @param {number} now */
function drawChart(memory, now) {
  const peak = history.peaks.allocated; // of all that the bands show
  const top = Math.max(peak * 1.25, 1);
  const paths = history.bands(now, WIDTH, HEIGHT, top);
  paths.forEach((path, i) => bands[i].setAttribute("d", path));
  const level = HEIGHT * (1 - peak / top);
  peakLine.setAttribute("d", `M0 ${level.toFixed(2)}H${WIDTH}`);
  peakLabel.textContent = `peak ${size(peak)}`;
  peakLabel.style.top = `${((100 * level) / HEIGHT).toFixed(2)}%`;
  since.textContent = `${Math.round(history.span(now) / 1000)} s ago`;
  chart.setAttribute("aria-label", describe(memory));
}

/** The chart in words. @param {Memory} memory @returns {string} */
function describe(memory) {
  const bytes = bytesOf(memory);
  const parts = KINDS.map((kind) => `${kind} ${size(bytes[kind])}`);
  return (
    `GPU memory over the last minute: now ${size(memory.numBytesInGpu)} in use ` +
    `(${parts.join(", ")}), peak ${size(history.peaks.used)} in use, ` +
    `${size(history.peaks.allocated)} with the pool`
  );
}
