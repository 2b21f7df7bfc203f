// The types that programs see: each `same` is an error unless both are the same type.

import { GPT2, check, configure, models, offline } from "../../../web/gpt2.js";
import type { Beam, Details, Memory, Session, Stats, StreamedToken } from "../../../web/gpt2.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
/** @param given a value of type A */
declare function same<B>(): <A>(given: A, equal: Same<A, B>) => void;

export async function use(lm: GPT2, session: Session, signal: AbortSignal) {
  const { reason, adapter, code } = await check();
  same<string | undefined>()(reason, true);
  same<string | undefined>()(adapter?.name, true);
  same<"insecure" | "no-webgpu" | "no-adapter" | undefined>()(code, true);
  same<void>()(await models.remove("gpt2"), true);
  same<boolean>()(await offline.enable(), true);
  configure({ baseURL: new URL("https://example.org/") });

  const one = lm.stream("Once", { signal, temperature: 0, seed: null });
  for await (const piece of one) same<string>()(piece, true);
  same<Stats | null>()(one.stats, true);
  for await (const { logprob, top } of lm.stream("Once", { tokens: true, topLogprobs: 2 })) {
    same<number>()(logprob, true);
    same<string>()(top[0].piece, true);
  }
  same<Details | null>()(one.details, true);
  same<IteratorResult<string, undefined>>()(await one.next(), true);
  const several = lm.stream(["Once", "The"], { numReturnSequences: 2, seed: [1, 2, 3, 4] });
  for await (const piece of several) same<{ row: number; text: string }>()(piece, true);
  same<Stats[] | null>()(several.stats, true);

  same<string>()(await lm.generate([1, 2]), true);
  same<Details>()(await lm.generate("Once", { details: true }), true);
  same<string[]>()(await lm.generate(["Once"]), true);
  same<Details[]>()(await lm.generate(["Once"], { details: true, topLogprobs: 2 }), true);
  same<string>()(await lm.generate("Once", { details: false }), true);
  same<string[]>()(await lm.generate(["Once"], { details: false }), true);
  lm.stream("Once", { details: false });
  same<Beam[]>()(await lm.generate("Once", { numBeams: 3, returnAllBeams: true }), true);
  same<Details[]>()(await lm.generate(["Once"], { numBeams: 3, returnAllBeams: true, details: true }), true);
  for await (const token of session.stream({ tokens: true })) same<StreamedToken>()(token, true);
  for await (const piece of session.stream()) same<string>()(piece, true);
  same<string>()(await session.generate(), true);
  same<number>()(await session.edit("Once"), true);
  same<void>()(await session.close(), true);
  same<number[]>()(await lm.logprobs("Once"), true);
  same<number[][]>()(await lm.logprobs(["Once"], { stride: 4 }), true);
  same<Float32Array>()(await lm.score([1, 2]), true);
  same<string | null>()((await lm.python("1")).result, true);

  const { odds, attention, lens, offsets } = await lm.inspect("Once", { odds: 5, attention: [0, 1], lens: 3, at: [1] });
  same<Uint32Array>()(offsets, true);
  same<Float32Array | undefined>()(odds?.entropies, true);
  same<Int32Array | undefined>()(odds?.top.ids, true);
  same<Float32Array | undefined>()(attention?.patterns, true);
  same<string[] | undefined>()(lens?.layers, true);

  lm.onmemory = (memory) => same<Memory>()(memory, true);
  lm.addEventListener("memory", ({ detail }) => same<Memory>()(detail, true), { signal });
  lm.addEventListener("lost", ({ detail: { message } }) => same<string>()(message, true));

  // @ts-expect-error the constructor is private
  new GPT2();
  // @ts-expect-error no such option
  lm.stream("Once", { temprature: 1 });
  // @ts-expect-error log-probabilities are part of the details
  await lm.generate("Once", { details: false, topLogprobs: 3 });
  // @ts-expect-error no such format
  await GPT2.load("gpt2", { dtype: "float8" });
  // @ts-expect-error null before the end
  one.details.text;
}
