/** gpt2-wgpu in its worker, as the page uses it; Python there reports the ids, the stream only text. */

let lm;

export async function load({ dtype }) {
  const { GPT2 } = await import("/site/web/gpt2.js");
  lm = await GPT2.load(new URL("/model/", location.href).href, { dtype });
  await lm.python("import json, time\nlm.compile(sampler='greedy')");
  const { output } = await lm.python("from gpt2_wgpu._version import __version__\nprint(__version__)");
  return { "gpt2-wgpu": output.trim() };
}

export async function generate(work, count, emit) {
  // The ids of all steps come at the end, with the time since the stream began.
  const { output } = await lm.python(`
prompts, count = json.loads(${JSON.stringify(JSON.stringify(work.prompts))}), ${count}
begun, marks, given, rows = time.perf_counter(), [], 0, [[] for _ in prompts]
def mark(until):
    ids = [row[place] for place in range(given, until) for row in rows]
    marks.append([time.perf_counter() - begun, ids])
stream = lm.stream_async(prompts, max_new_tokens=count, stop_token_ids=None)
async for row, _ in stream:
    rows[row] += stream.last_token_ids
    if (complete := min(map(len, rows))) > given:
        mark(complete)
        given = complete
if given < count:  # the last tokens of a row end within a character
    rows = [stats.token_ids for stats in stream.stats]
    mark(count)
print(json.dumps(marks))`);
  for (const [seconds, ids] of JSON.parse(output)) emit(ids, seconds);
}
