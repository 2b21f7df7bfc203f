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
  // The ids of all pieces come at the end, with the time since the stream began.
  const { output } = await lm.python(`
begun, marks, given = time.perf_counter(), [], 0
stream = lm.stream_async(${JSON.stringify(work.prompt)}, max_new_tokens=${count}, stop_token_ids=None)
async for _ in stream:
    marks.append([time.perf_counter() - begun, stream.last_token_ids])
    given += len(stream.last_token_ids)
if given < ${count}:  # the last ones ended within a character
    marks.append([time.perf_counter() - begun, stream.stats.token_ids[given:]])
print(json.dumps(marks))`);
  for (const [seconds, ids] of JSON.parse(output)) emit(ids, seconds);
}
