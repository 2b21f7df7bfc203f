// Time of a decode step: its dispatches with GPU time, bytes and bandwidth, as a table with bars. And times of
// looking inside, a row of index.html each.

import { element, make } from "../dom.js";
import { counted, sentence } from "../format.js";
import { rove, stopAt } from "./roving.js";

/** @typedef {import("../../gpt2.js").Inspection} Inspection */

const SHADERS = "https://github.com/gpt2-wgpu/gpt2-wgpu/blob/main/shaders/";

const view = element("times", HTMLElement);
const rows = element("time-rows", HTMLTableSectionElement);
const line = element("time-line", HTMLElement);
const benched = element("benched", HTMLElement);

rove(rows);

/** Shows times, or hides the view. @param {Inspection} found */
export function showTime({ time }) {
  view.hidden = !time;
  if (!time) return;
  const { steps, position, kernels, weights, seconds, bytes, peakReadBandwidth: peak, peakError } = time;
  const longest = seconds ? Math.max(...seconds) : 0;
  rows.replaceChildren(
    ...kernels.map((kernel, i) => {
      const name = make("a", "", kernel);
      name.href = `${SHADERS}${encodeURIComponent(kernel)}.wgsl`;
      const head = make("th", "", name, weights[i].length ? ` ${weights[i].join(" × ")}` : "");
      head.scope = "row";
      const bar = make("span", "filled");
      if (seconds) bar.style.width = `${((100 * seconds[i]) / (longest || 1)).toFixed(1)}%`;
      const rate = seconds?.[i] ? (bytes[i] / seconds[i] / 1e9).toFixed(2) : "–";
      const cells = [seconds ? micro(seconds[i]) : "–", kilo(bytes[i]), rate];
      return make("tr", "", head, ...cells.map((text) => make("td", "", text)), make("td", "scale", bar));
    }),
  );
  stopAt(rows, 0);
  const total = sum(bytes);
  const parts = [`${kernels.length} dispatches`, `${kilo(total)} kB`];
  if (seconds) {
    const rate = total / sum(seconds);
    parts.push(`${micro(sum(seconds))} µs`, `${(rate / 1e9).toFixed(2)} GB/s`);
    if (peak) parts.push(`${((100 * rate) / peak).toFixed(0)} % of the ${(peak / 1e9).toFixed(2)} GB/s that this adapter can read`);
  }
  const means = seconds ? `Means of ${steps} steps from position ${position}.` : "This browser has no timestamp queries: there are no times.";
  line.textContent = `One step: ${parts.join(", ")}. ${means}`;
  if (peakError) line.append(` What this adapter can read was not measured: ${sentence(peakError)}`);
}

/** Shows three times of looking inside, or hides the view. @param {Inspection} found */
export function showBench({ ids, bench }) {
  benched.hidden = !bench;
  if (!bench) return;
  for (const { cells, dataset } of element("bench-rows", HTMLTableSectionElement).rows) {
    const [fastest, median, slowest] = bench[/** @type {"odds"} */ (dataset.figure)].toSorted();
    [median, fastest, slowest].forEach((seconds, i) => {
      cells[i + 1].textContent = (1e3 * seconds).toFixed(seconds < 0.1 ? 1 : 0);
    });
  }
  /** @type {Record<string, string>} */
  const texts = {
    measured: bench.tokens < ids.length ? `the last ${bench.tokens} of ${ids.length} tokens` : counted(ids.length, "token"),
    lensTokens: counted(bench.lensTokens, "token"),
    newTokens: counted(bench.newTokens, "token"),
    topLogprobs: String(bench.topLogprobs),
    ratio: (Math.min(...bench.detailedStream) / Math.min(...bench.stream)).toFixed(2),
  };
  for (const place of /** @type {NodeListOf<HTMLElement>} */ (benched.querySelectorAll("[data-fill]"))) {
    place.textContent = texts[place.dataset.fill ?? ""];
  }
}

/** @param {Float32Array} values */
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** @param {number} seconds */
const micro = (seconds) => (seconds * 1e6).toFixed(seconds < 1e-5 ? 1 : 0);

/** @param {number} bytes */
const kilo = (bytes) => (bytes / 1e3).toLocaleString("en", { maximumFractionDigits: bytes < 1e4 ? 1 : 0 });
