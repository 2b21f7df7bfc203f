// What the page relies on in web/gpt2.js, seen at one implementation: the real one or a fake.

/** Types in place of values; an array is that of its first item. */
const shape = (value) => {
  if (value === null || typeof value !== "object") return value === null ? "null" : typeof value;
  if (Array.isArray(value)) return value.length ? [shape(value[0])] : [];
  const given = Object.entries(value).filter(([, each]) => each !== undefined);
  return Object.fromEntries(given.map(([key, each]) => [key, shape(each)]));
};

const caught = async (work) => {
  try {
    await work();
    return "nothing was thrown";
  } catch ({ name }) {
    return name;
  }
};

/** @param {any} library a module with the exports of web/gpt2.js */
export async function observe({ GPT2, check, models }) {
  const seen = {};
  const see = (name, value) => (seen[name] = shape(value));

  see("check", await check());
  see("size", await models.size("fairytales"));
  see("offered", await models.offered());
  seen.notThere = await caught(() => GPT2.load("no/such"));

  const progress = [];
  const weights = [];
  const lm = await GPT2.load("fairytales", {
    dtype: "float16",
    onProgress: (report) => progress.push(report),
    onMemory: (memory) => weights.push(memory),
  });
  seen.stages = [...new Set(progress.filter(({ state }) => state === "done").map(({ stage }) => stage))];
  seen.progress = Object.assign({}, ...progress.map(shape));
  if (weights.length) see("onMemory", weights.at(-1));
  see("info", lm.info);

  const reported = [];
  lm.onmemory = (memory) => reported.push(memory);
  const stream = lm.stream("Once", { maxTokens: 3, seed: 1 });
  seen.statsBefore = shape(stream.stats);
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  seen.pieces = shape(pieces);
  see("stats", stream.stats);
  seen.finishReason = stream.stats.finishReason;
  await new Promise((resolve) => setTimeout(resolve, 50));
  see("onmemory", reported.at(-1));
  see("memory", await lm.memory());

  const detailed = lm.stream("Once", { maxTokens: 3, seed: 1, details: true, topLogprobs: 2 });
  seen.detailsBefore = shape(detailed.details);
  for await (const _ of detailed);
  see("details", detailed.details);

  const tokens = lm.stream("Once", { maxTokens: 3, seed: 1, tokens: true, topLogprobs: 2 });
  see("token", (await tokens.next()).value);
  for await (const _ of tokens);

  const session = await lm.session("Once");
  seen.sessionText = [shape(await session.generate({ maxTokens: 2, seed: 1 })), shape(await session.text())];
  see("sessionIds", await session.tokenIds());
  seen.sessionVoid = [await session.rewind(1), await session.close()].map(shape);

  const controller = new AbortController();
  const long = lm.stream("Once", { maxTokens: 50, seed: 1, signal: controller.signal });
  seen.stopped = await caught(async () => {
    for await (const _ of long) controller.abort();
  });
  seen.stoppedReason = long.stats.finishReason;
  see("python", await lm.python("print(1)"));

  reported.length = 0;
  await lm.dispose();
  await lm.dispose();
  see("disposed", reported);
  seen.heldAfterDispose = reported.map(({ byKind, numTensors }) => byKind.weights + numTensors);
  seen.disposedMemory = await caught(() => lm.memory());
  seen.disposedStream = await caught(() => lm.stream("Once").next());
  seen.disposedPython = await caught(() => lm.python("1"));

  const cancelling = new AbortController();
  const loading = caught(() => GPT2.load("fairytales", { signal: cancelling.signal, onMemory: (m) => reported.push(m) }));
  cancelling.abort();
  seen.cancelled = await loading;
  return seen;
}
