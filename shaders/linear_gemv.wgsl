// Linear layer y = x Wᵀ (+ what `store` adds) for few rows: LANES threads share a column.
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x [rows, 8 * depth8] f32 · weights [columns, 8 * depth8] (variant `weight`: f32, f16)
//           · the rest by variant `store`: store_plain.wgsl or store_qkv.wgsl
// Threads:  256 a workgroup = 256 / LANES columns; neighbouring lanes read neighbouring groups of
//           eight weights (coalesced); workgroup (x, z) -> columns, (y) -> ROWS rows (1 or 4)
// Limits:   rows <= ROWS * 65,535

override ROWS: u32 = 1u;
override LANES: u32 = 32u; // a power of two, ROWS <= LANES <= 256
//!include "weight_{weight}.wgsl"
//!include "store_{store}.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

var<workgroup> partial: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let lane = thread % LANES;
  let wanted = (group.z * groups.x + group.x) * (256u / LANES) + thread / LANES;
  let column = min(wanted, params.columns - 1u); // every thread takes part in the barriers
  let first_row = group.y * ROWS;
  let last = params.rows - 1u;
  let depth4 = params.depth8 * 2u;
  let r0 = first_row * depth4;
  let r1 = min(first_row + 1u, last) * depth4;
  let r2 = min(first_row + 2u, last) * depth4;
  let r3 = min(first_row + 3u, last) * depth4;
  let weight = column * params.depth8;

  var sum = vec4<f32>(0.0);
  for (var k = lane; k < params.depth8; k += LANES) {
    let w = weights8(weight + k);
    sum.x += dot(w[0], x[r0 + 2u * k]) + dot(w[1], x[r0 + 2u * k + 1u]);
    if (ROWS > 1u) {
      sum.y += dot(w[0], x[r1 + 2u * k]) + dot(w[1], x[r1 + 2u * k + 1u]);
      sum.z += dot(w[0], x[r2 + 2u * k]) + dot(w[1], x[r2 + 2u * k + 1u]);
      sum.w += dot(w[0], x[r3 + 2u * k]) + dot(w[1], x[r3 + 2u * k + 1u]);
    }
  }
  partial[thread] = sum;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half = half / 2u) {
    if (lane < half) { partial[thread] += partial[thread + half]; }
    workgroupBarrier();
  }
  // One lane a row stores, so that ROWS stores run side by side.
  if (lane < ROWS && first_row + lane < params.rows && wanted < params.columns) {
    store(first_row + lane, column, partial[thread - lane][lane]);
  }
}
