/** transformers.js: model.generate, on the same graph as onnxruntime-web. */

import { versionOf } from "./checkpoint.js";

let library;
let model;

export async function load({ device, graph = "model" }, threads) {
  library = await import("/npm/@huggingface/transformers/dist/transformers.web.min.js");
  const { env, AutoModelForCausalLM } = library;
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/";
  env.useBrowserCache = false;
  env.useWasmCache = false;
  const { wasm } = env.backends.onnx;
  wasm.wasmPaths = "/npm/@huggingface/transformers/node_modules/onnxruntime-web/dist/";
  wasm.numThreads = threads;
  const options = { dtype: "fp32", device, model_file_name: graph };
  model = await AutoModelForCausalLM.from_pretrained("model", options);
  return { "transformers.js": await versionOf("@huggingface/transformers") };
}

export async function generate(work, count, emit) {
  const { Tensor } = library;
  const ids = work.ids.flat();
  const shape = [work.ids.length, work.ids[0].length];
  let started = false; // the prompt is put first
  await model.generate({
    input_ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
    max_new_tokens: count,
    min_new_tokens: count,
    do_sample: false,
    streamer: {
      put(rows) {
        if (started) emit(rows.flat().map(Number));
        started = true;
      },
      end() {},
    },
  });
}
