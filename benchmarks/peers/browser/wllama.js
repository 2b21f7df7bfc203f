/** wllama: llama.cpp in WASM, on the GGUF of gguf_file.py, whose words spell their ids. */

import { versionOf } from "./checkpoint.js";

let wllama;

export async function load(_, threads) {
  const folder = "/npm/@wllama/wllama/esm/";
  const { Wllama } = await import(`${folder}index.js`);
  wllama = new Wllama({ default: `${folder}wasm/wllama.wasm` });
  const { n_positions: context } = await (await fetch("/model/config.json")).json();
  const file = await (await fetch("/model/model.gguf")).blob();
  await wllama.loadModel([file], {
    n_ctx: context,
    n_parallel: 1,
    n_threads: threads,
    n_gpu_layers: 0,
    cache_type_k: "f32",
    cache_type_v: "f32",
    warmup: false,
  });
  if (wllama.getNumThreads() !== threads) throw new Error(`${wllama.getNumThreads()} threads, not ${threads}`);
  return { wllama: await versionOf("@wllama/wllama") };
}

export async function generate(work, count, emit) {
  let unread = "";
  await wllama.createCompletion({
    prompt: work.ids[0].map((id) => `<${id}>`).join(""),
    max_tokens: count,
    temperature: 0,
    ignore_eos: true,
    cache_prompt: false, // the same prompt comes again: its cache would be reused
    stream: true,
    onData(chunk) {
      unread += chunk.choices[0]?.text ?? "";
      const words = unread.match(/<\d+>/g) ?? [];
      unread = unread.slice(words.join("").length);
      if (words.length) emit(words.map((word) => Number(word.slice(1, -1))));
    },
  });
}
