/** The worker: serves the page's calls (rpc.js) with downloads and Python. */

import { check } from "./check.js";
import * as models from "./models.js";
import { inPython, plain } from "./python.js";
import { errorOf, serve } from "./rpc.js";
import { load } from "./worker-loading.js";
import { alone, dispose, modelOf, stoppable } from "./worker-models.js";
import { sessionCalls } from "./worker-sessions.js";
import { generate, stream } from "./worker-texts.js";

/** @typedef {import("./worker-models.js").Context} Context */

serve({
  check,
  size: ({ signal }, source, options) => models.size(source, options, signal),
  offered: () => models.offered(),
  list: () => models.list(),
  remove: (_, id) => models.remove(id),
  load,
  stream,
  generate,
  encode: (_, id, text, { allowedSpecial = [] }) => plain(modelOf(id).proxy.encode(text, inPython(allowedSpecial))),
  decode: (_, id, tokenIds) => modelOf(id).proxy.decode(inPython(tokenIds)),
  pieces: (_, id, text, { allowedSpecial = [] }) =>
    plain(modelOf(id).proxy.pieces(inPython(text), inPython(allowedSpecial))),
  logprobs: (context, id, texts, { stride }) =>
    evaluate(context, id, (proxy) => proxy.logprobs(inPython(texts), stride)),
  perplexity: (context, id, texts, { stride }) =>
    evaluate(context, id, (proxy) => proxy.perplexity(inPython(texts), stride)),
  inspect: (context, id, input, options) =>
    evaluate(context, id, (proxy) => proxy.inspect(inPython(input), inPython(options))),
  score: (context, id, tokenIds, { targetIds }) =>
    evaluate(context, id, (proxy) => proxy.score(inPython(tokenIds), inPython(targetIds))),
  ...sessionCalls,
  memory: (_, model) => plain(modelOf(model).proxy.memory()),
  python,
  dispose,
});

/** @param {Context} context @param {number} id @param {(proxy: any) => Promise<any>} work */
function evaluate({ signal }, id, work) {
  return alone(id, "evaluating", ({ proxy }) => stoppable(id, signal, work(proxy)));
}

/** @param {Context} context @param {number} id @param {string} code */
function python({ signal }, id, code) {
  return alone(id, "running Python", async ({ proxy }) => {
    const { error, ...done } = await stoppable(id, signal, proxy.python(code));
    if (error) throw errorOf(error);
    return done;
  });
}
