// Examples for the console, each run by a test.

/** @type {{title: string, code: string}[]} */
export const EXAMPLES = [
  {
    title: "Generate",
    code: `lm.compile(sampler=gw.samplers.TopK(k=40, temperature=0.8, seed=7))
print(await lm.generate_async("The fox said", max_length=60))`,
  },
  {
    title: "Memory scopes (gw.tidy)",
    code: `before = gw.memory().num_tensors
with gw.tidy():
    x = gw.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = gw.ops.softmax(x @ x)
    print((await y.data()).tolist())
    print("inside:", gw.memory().num_tensors - before, "tensors")
print("after:", gw.memory().num_tensors - before, "tensors")`,
  },
  {
    title: "Top 5 next tokens",
    code: `prompt = "The king had a"
ids = lm.preprocessor.encode_prompts([prompt])
with gw.tidy():
    logits = lm({"token_ids": ids, "padding_mask": [[True] * len(ids[0])]})
    top, ids = gw.ops.top_k(gw.ops.softmax(logits), 5)
    top, ids = await top.data(), await ids.data()
print(prompt, "…")
for probability, token in zip(top.tolist()[0][-1], ids.tolist()[0][-1]):
    print(f"{probability:6.1%}", lm.preprocessor.tokenizer.detokenize([token]))`,
  },
];
