/** onnxruntime-web on the graph of onnx_graph.py; the cache stays where it was computed. */

import { argmax, versionOf } from "./checkpoint.js";

let ort;
let session;
let pasts;
let shape;

export async function load({ provider, graph = "model" }, threads) {
  const folder = "/npm/onnxruntime-web/dist/";
  ort = await import(`${folder}ort.${provider}.bundle.min.mjs`);
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = threads;
  const { n_layer: layers, n_head: heads, n_embd: width } = await (await fetch("/model/config.json")).json();
  const kinds = Array.from({ length: layers }, (_, n) => [`${n}.key`, `${n}.value`]).flat();
  const place = provider === "webgpu" ? "gpu-buffer" : "cpu";
  session = await ort.InferenceSession.create(`/model/onnx/${graph}.onnx`, {
    executionProviders: [provider],
    graphOptimizationLevel: "all",
    preferredOutputLocation: Object.fromEntries(kinds.map((kind) => [`present.${kind}`, place])),
  });
  pasts = kinds;
  shape = [heads, 0, width / heads];
  return { "onnxruntime-web": await versionOf("onnxruntime-web") };
}

export async function generate(work, count, emit) {
  const batch = work.ids.length;
  const int64 = (rows) => new ort.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [batch, rows[0].length]);
  let caches = pasts.map(() => new ort.Tensor("float32", new Float32Array(0), [batch, ...shape]));
  let ids = work.ids;
  let position = 0;
  for (let i = 0; i < count; i++) {
    const places = ids.map((row) => row.map((_, n) => position + n));
    const feeds = { input_ids: int64(ids), position_ids: int64(places) };
    pasts.forEach((kind, n) => (feeds[`past_key_values.${kind}`] = caches[n]));
    const outputs = await session.run(feeds);
    for (const cache of caches) cache.dispose();
    caches = pasts.map((kind) => outputs[`present.${kind}`]);
    position += ids[0].length;
    const best = argmax(outputs.logits.data, batch);
    ids = best.map((id) => [id]);
    emit(best);
  }
  for (const cache of caches) cache.dispose();
}
