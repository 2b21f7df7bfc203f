// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for one row, W8A8: x is rounded to int8 in blocks
// of 32 on the way, W is stored in blocks (CPU adapters, where loads and instructions limit).
//
// Formula:  sum[r, c] = Σ_blocks scale_x * scale_w * Σ_32 q_x * q_w, the inner sum in i32, with
//           scale_x = max |x| / 127 of a block and q_x = round(x / scale_x); then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl (with NORM each workgroup normalises it, since what
//           is rounded has to be the outcome) or input_parts.wgsl · weights [columns, 8 * depth8]
//           (variant `weight`: q8, q4) · the rest by variant `store`: store_plain.wgsl,
//           store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 4 columns, workgroup (y) -> row. The threads of a workgroup first round the
//           row together. Then each reads its lines from front to back, which is what hardware
//           foresees: in any other order memory, not arithmetic, limits.
// Limits:   columns <= 64 * 65,535, rows <= 65,535, depth = 32 * DEPTH32, 10 words of workgroup
//           memory a block; linear_w8a8_gemm_cpu.wgsl gives the same bits, and is better from two rows on

const THREADS: u32 = 16u;
// Blocks of a row, and not more, since a workgroup begins by zeroing its memory. At most 384, which
// 16 KiB hold.
override DEPTH32: u32 = 384u;
//!include "block_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "row_moments.wgsl"
//!include "quantize_activations.wgsl"

var<workgroup> low: array<vec4<u32>, DEPTH32>;
var<workgroup> high: array<vec4<u32>, DEPTH32>;
var<workgroup> scales: array<f32, DEPTH32>;
var<workgroup> totals: array<i32, DEPTH32>;

fn total(four: vec4<u32>) -> i32 {
  return dot4I8Packed(four.x, 0x01010101u) + dot4I8Packed(four.y, 0x01010101u)
       + dot4I8Packed(four.z, 0x01010101u) + dot4I8Packed(four.w, 0x01010101u);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let row = group.y;
  var norm = vec2<f32>(0.0, 1.0);
  if (NORM) { norm = norm_of(row, thread); }
  for (var i = thread; i < DEPTH32; i += THREADS) {
    let block = rounded_block(row, i, norm);
    low[i] = block.low;
    high[i] = block.high;
    scales[i] = block.scale;
    if (OFFSET) { totals[i] = total(block.low) + total(block.high); }
  }
  workgroupBarrier();
  let column = 4u * (THREADS * group.x + thread);
  if (column >= params.columns) { return; }
  // Lines past the end repeat the last one and are not stored.
  let last = params.columns - 1u;
  let w0 = column * DEPTH32;
  let w1 = min(column + 1u, last) * DEPTH32;
  let w2 = min(column + 2u, last) * DEPTH32;
  let w3 = min(column + 3u, last) * DEPTH32;

  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < DEPTH32; i++) {
    let a = low[i];
    let b = high[i];
    var t = 0;
    if (OFFSET) { t = totals[i]; }
    sum += scales[i] * vec4<f32>(product(w0 + i, a, b, t), product(w1 + i, a, b, t),
                                 product(w2 + i, a, b, t), product(w3 + i, a, b, t));
  }
  store(row, column, sum.xy);
  if (column + 2u < params.columns) { store(row, column + 2u, sum.zw); }
}
