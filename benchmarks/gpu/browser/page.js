/** Loads the engine as a page does, measures what /measure/plan asks for, and posts the figures. */

import { GPT2 } from "/web/gpt2.js";

const post = (kind, value) =>
  fetch("/measure/report", { method: "POST", body: JSON.stringify({ kind, value }) });

/** The report of `gpt2_wgpu.bench` for one weight format. */
async function measured(lm, work) {
  const { output } = await lm.python(`
import json
from gpt2_wgpu import bench
_work = json.loads(${JSON.stringify(JSON.stringify(work))})
_plan = bench.Plan(bench.RandomModel.parse(_work.pop("size")), **_work)
print(json.dumps(await bench.measure_async(_plan)))`);
  return JSON.parse(output.trim().split("\n").at(-1));
}

try {
  const plan = await (await fetch("/measure/plan")).json();
  const begun = performance.now();
  const lm = await GPT2.load("fairytales"); // with the self-test
  const loadSeconds = (performance.now() - begun) / 1000;
  await post("loaded", { user_agent: navigator.userAgent, load_seconds: loadSeconds });
  for (const work of plan) await post("measured", await measured(lm, work));
  await post("done", null);
} catch (error) {
  await post("error", String(error?.message ?? error));
}
