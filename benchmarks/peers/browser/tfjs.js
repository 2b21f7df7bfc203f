/** TF.js on WebGPU: GPT-2 in its ops, one fused matMul per linear layer, the cache by concat. */

import { readCheckpoint, versionOf } from "./checkpoint.js";

let config;
let weights;

function script(src) {
  return new Promise((loaded, failed) => {
    document.head.append(Object.assign(document.createElement("script"), { src, onload: loaded, onerror: failed }));
  });
}

export async function load() {
  await script("/npm/@tensorflow/tfjs/dist/tf.min.js");
  await script("/npm/@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.min.js");
  if (!(await tf.setBackend("webgpu"))) throw new Error("TF.js rejects its webgpu backend");
  await tf.ready();
  const read = await readCheckpoint();
  config = read.config;
  weights = new Map([...read.weights].map(([name, { values, shape }]) => [name, tf.tensor(values, shape)]));
  return { "TF.js": await versionOf("@tensorflow/tfjs") };
}

export async function generate(work, count, emit) {
  let caches = null;
  let ids = work.ids;
  let position = 0;
  for (let i = 0; i < count; i++) {
    const [best, ...grown] = tf.tidy(() => forward(ids, position, caches));
    position += ids[0].length;
    const tokens = [...(await best.data())];
    ids = tokens.map((token) => [token]);
    tf.dispose([best, caches]);
    caches = grown;
    emit(tokens);
  }
  tf.dispose(caches);
}

/** → [the most likely next id of each row, then keys and values [B, H, T, D] of each layer]. */
function forward(ids, position, caches) {
  const words = weights.get("wte.weight");
  const [rows, tokens] = [ids.length, ids[0].length];
  const places = weights.get("wpe.weight").slice([position, 0], [tokens, -1]);
  let x = tf.gather(words, tf.tensor2d(ids, [rows, tokens], "int32")).add(places); // (B, T, C)
  const grown = [];
  for (let n = 0; n < config.n_layer; n++) {
    const past = caches && caches.slice(2 * n, 2 * n + 2);
    const [attended, keys, values] = attend(norm(x, `h.${n}.ln_1`), n, past);
    grown.push(keys, values);
    x = x.add(attended);
    x = x.add(linear(gelu(linear(norm(x, `h.${n}.ln_2`), `h.${n}.mlp.c_fc`)), `h.${n}.mlp.c_proj`));
  }
  const last = norm(x.slice([0, tokens - 1, 0], [-1, 1, -1]).squeeze([1]), "ln_f");
  return [tf.argMax(tf.matMul(last, words, false, true), -1), ...grown];
}

function attend(x, n, past) {
  const [rows, tokens, width] = x.shape;
  const heads = config.n_head;
  const split = linear(x, `h.${n}.attn.c_attn`).reshape([rows, tokens, 3, heads, width / heads]);
  const [q, k, v] = tf.unstack(split, 2).map((part) => part.transpose([0, 2, 1, 3])); // (B, H, T, D)
  const keys = past ? tf.concat([past[0], k], 2) : k;
  const values = past ? tf.concat([past[1], v], 2) : v;
  let scores = tf.matMul(q, keys, false, true).mul(1 / Math.sqrt(width / heads)); // (B, H, T, P + T)
  if (tokens > 1) scores = scores.add(causal(tokens)); // the prompt comes at once, from position 0
  const mixed = tf.matMul(tf.softmax(scores), values).transpose([0, 2, 1, 3]).reshape([rows, tokens, width]);
  return [linear(mixed, `h.${n}.attn.c_proj`), keys, values];
}

function causal(tokens) {
  return tf.sub(1, tf.linalg.bandPart(tf.ones([tokens, tokens]), -1, 0)).mul(-1e9);
}

function linear(x, name) {
  const [b, bias] = [weights.get(`${name}.weight`), weights.get(`${name}.bias`)];
  const flat = x.reshape([-1, b.shape[0]]);
  return tf.fused.matMul({ a: flat, b, bias }).reshape([...x.shape.slice(0, -1), b.shape[1]]);
}

function norm(x, name) {
  const { mean, variance } = tf.moments(x, -1, true);
  const scaled = x.sub(mean).mul(variance.add(config.layer_norm_epsilon).rsqrt());
  return scaled.mul(weights.get(`${name}.weight`)).add(weights.get(`${name}.bias`));
}

function gelu(x) {
  const inner = x.add(x.mul(x).mul(x).mul(0.044715)).mul(Math.sqrt(2 / Math.PI));
  return x.mul(0.5).mul(tf.tanh(inner).add(1));
}
