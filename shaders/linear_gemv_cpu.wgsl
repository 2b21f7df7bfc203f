// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for one row, four outputs a thread (CPU adapters,
// where a load costs more than the arithmetic on it: four columns share those of x).
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] (variant `weight`) · the rest by variant `store`: store_plain.wgsl,
//           store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 4 columns, workgroup (y) -> row. A row that takes more than a load (NORM,
//           input_parts.wgsl) is first made ready once by all threads of a workgroup; no other needs
//           the barrier.
// Limits:   columns <= 64 * 65,535, rows <= 65,535; a row that is made ready fits workgroup memory;
//           linear_gemm_cpu.wgsl is better from two rows on

const THREADS: u32 = 16u;
//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "folded_norm.wgsl"
//!include "row_moments.wgsl"
//!include "dot8.wgsl"

// depth / 4 where DERIVED, else 1: a workgroup begins by zeroing its memory. 16 KiB hold 1008.
override READY: u32 = 1008u;

var<workgroup> ready: array<vec4<f32>, READY>;

// Returns the row's moments (0 without NORM); every thread must call.
fn make_ready(row: u32, thread: u32) -> vec2<f32> {
  let shift = shift_of(row);
  var own = vec2<f32>(0.0);
  for (var k = thread; k < params.depth8; k += THREADS) {
    var a = read8(row, k);
    if (NORM) {
      a = shifted(a, shift, k);
      own += moments8(a);
      a = gained(a, k);
    }
    ready[2u * k] = a[0];
    ready[2u * k + 1u] = a[1];
  }
  if (NORM) { return moments_of_all(own, thread); }
  workgroupBarrier();
  return own;
}

fn row8(row: u32, k: u32) -> mat2x4<f32> {
  if (DERIVED) { return mat2x4<f32>(ready[2u * k], ready[2u * k + 1u]); }
  return read8(row, k);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>) {
  let row = group.y;
  var moments = vec2<f32>(0.0);
  if (DERIVED) { moments = make_ready(row, thread); }
  let column = 4u * (THREADS * group.x + thread);
  if (column >= params.columns) { return; }
  // Lines past the end repeat the last one and are not stored.
  let last = params.columns - 1u;
  let w0 = column * params.depth8;
  let w1 = min(column + 1u, last) * params.depth8;
  let w2 = min(column + 2u, last) * params.depth8;
  let w3 = min(column + 3u, last) * params.depth8;

  var sum = vec4<f32>(0.0);
  for (var k = 0u; k < params.depth8; k++) {
    let a = row8(row, k);
    sum += vec4<f32>(dot8(weights8(w0 + k), a), dot8(weights8(w1 + k), a),
                     dot8(weights8(w2 + k), a), dot8(weights8(w3 + k), a));
  }
  for (var i = 0u; i < 4u; i++) {
    sum[i] = normed(min(column + i, last), sum[i], moments);
  }
  store(row, column, sum.xy);
  if (column + 2u < params.columns) { store(row, column + 2u, sum.zw); }
}
