// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for one token, W8A8 GEMV for CPU adapters,
// which are bound by loads and instructions: x is rounded to int8 in blocks of 32, W is stored in
// blocks.
//
// Formula:  sum[m, n] = Σ_blocks scale_x scale_w Σ_32 q_x q_w, the inner sum in i32, with
//           scale_x = max |x| / 127 of a block and q_x = round(x / scale_x); then store(m, n, sum)
// Bindings: x by variant `input`: input_plain.wgsl (with NORM each workgroup normalises it before
//           rounding) or input_partials.wgsl · weights [out_features, in_features] (variant
//           `weight`: q8, q4) · the rest by variant `store`: store_plain.wgsl, store_qkv.wgsl or
//           store_logits.wgsl
// Threads:  thread (x) -> 4 outputs, workgroup (y) -> token. The threads of a workgroup first round
//           the token together. Then each streams its weight rows sequentially, for the prefetcher:
//           other orders become memory-bound.
// Limits:   out_features <= 64 * 65,535, tokens <= 65,535, in_features = 32 * BLOCKS, 10 words of
//           workgroup memory a block; linear_w8a8_gemm_cpu.wgsl gives the same bits and is faster
//           from two tokens on

const THREADS: u32 = 16u;
// Exactly the blocks of a token, as a workgroup begins by zeroing its memory. At most 384, which
// 16 KiB hold.
override BLOCKS: u32 = 384u;
//!include "block_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "norm_moments.wgsl"
//!include "quantize_activations.wgsl"

var<workgroup> low: array<vec4<u32>, BLOCKS>;
var<workgroup> high: array<vec4<u32>, BLOCKS>;
var<workgroup> scales: array<f32, BLOCKS>;
var<workgroup> block_sums: array<i32, BLOCKS>;

fn sum_of(four: vec4<u32>) -> i32 {
  return dot4I8Packed(four.x, 0x01010101u) + dot4I8Packed(four.y, 0x01010101u)
       + dot4I8Packed(four.z, 0x01010101u) + dot4I8Packed(four.w, 0x01010101u);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let m = group.y;
  var norm = vec2<f32>(0.0, 1.0);
  if (NORM) { norm = norm_of(m, thread); }
  for (var i = thread; i < BLOCKS; i += THREADS) {
    let block = rounded_block(m, i, norm);
    low[i] = block.low;
    high[i] = block.high;
    scales[i] = block.scale;
    if (NEEDS_SUM) { block_sums[i] = sum_of(block.low) + sum_of(block.high); }
  }
  workgroupBarrier();
  let n = 4u * (THREADS * group.x + thread);
  if (n >= params.out_features) { return; }
  // Outputs past the end repeat the last one and are not stored.
  let last = params.out_features - 1u;
  let w0 = n * BLOCKS;
  let w1 = min(n + 1u, last) * BLOCKS;
  let w2 = min(n + 2u, last) * BLOCKS;
  let w3 = min(n + 3u, last) * BLOCKS;

  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < BLOCKS; i++) {
    let a = low[i];
    let b = high[i];
    var t = 0;
    if (NEEDS_SUM) { t = block_sums[i]; }
    sum += scales[i] * vec4<f32>(block_product(w0 + i, a, b, t), block_product(w1 + i, a, b, t),
                                 block_product(w2 + i, a, b, t), block_product(w3 + i, a, b, t));
  }
  store(m, n, sum.xy);
  if (n + 2u < params.out_features) { store(m, n + 2u, sum.zw); }
}
