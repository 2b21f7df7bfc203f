// Linear layer y = x Wᵀ (+ what `store` adds) for few rows: LANES threads share a column.
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] (variant `weight`) · the rest by variant `store`: store_plain.wgsl or
//           store_qkv.wgsl
// Threads:  256 a workgroup = 256 / LANES columns; neighbouring lanes read neighbouring groups of
//           eight weights (coalesced); workgroup (x, z) -> columns, (y) -> ROWS rows (1 to 8)
// Limits:   rows <= ROWS * 65,535

override ROWS: u32 = 1u;
override LANES: u32 = 32u; // a power of two, ROWS <= LANES <= 128
//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"

var<workgroup> partial: array<vec4<f32>, 256>;

// The sum of `value` over the lanes that share a column; every thread must call.
fn column_sum(value: vec4<f32>, thread: u32, lane: u32) -> vec4<f32> {
  partial[thread] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half = half / 2u) {
    if (lane < half) { partial[thread] += partial[thread + half]; }
    workgroupBarrier();
  }
  let total = partial[thread - lane];
  workgroupBarrier(); // `partial` may be written again only after everybody has read
  return total;
}

fn dot8(a: mat2x4<f32>, b: mat2x4<f32>) -> f32 { return dot(a[0], b[0]) + dot(a[1], b[1]); }

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let lane = thread % LANES;
  let wanted = (group.z * groups.x + group.x) * (256u / LANES) + thread / LANES;
  let column = min(wanted, params.columns - 1u); // every thread takes part in the barriers
  let first_row = group.y * ROWS;
  let last = params.rows - 1u;
  let weight = column * params.depth8;

  var shift = mat2x4<f32>(); // row r of the eight stands at [r / 4][r % 4], here and below
  for (var r = 0u; r < ROWS; r++) { shift[r / 4u][r % 4u] = shift_of(min(first_row + r, last)); }
  var sum = mat2x4<f32>();
  var first = mat2x4<f32>(); // moments of the rows, for NORM
  var second = mat2x4<f32>();
  for (var k = lane; k < params.depth8; k += LANES) {
    let w = gained(weights8(weight + k), k);
    for (var r = 0u; r < ROWS; r++) {
      var a = read8(min(first_row + r, last), k);
      if (NORM) {
        a = shifted(a, shift[r / 4u][r % 4u], k);
        first[r / 4u][r % 4u] += dot(a[0] + a[1], vec4<f32>(1.0));
        second[r / 4u][r % 4u] += dot8(a, a);
      }
      sum[r / 4u][r % 4u] += dot8(w, a);
    }
  }
  if (ROWS == 1u) { // one vector has room for all
    let all = column_sum(vec4<f32>(sum[0].x, first[0].x, second[0].x, 0.0), thread, lane);
    sum[0].x = normed(column, all.x, all.y, all.z);
  } else {
    for (var i = 0u; i < (ROWS + 3u) / 4u; i++) {
      sum[i] = column_sum(sum[i], thread, lane);
      if (NORM) {
        first[i] = column_sum(first[i], thread, lane);
        second[i] = column_sum(second[i], thread, lane);
        for (var j = 0u; j < 4u; j++) {
          sum[i][j] = normed(column, sum[i][j], first[i][j], second[i][j]);
        }
      }
    }
  }

  // Two columns are stored together: the odd ones hand theirs over. One lane a row stores, so that
  // ROWS stores run side by side.
  let mine = sum[min(lane, 7u) / 4u][lane % 4u];
  partial[thread].x = mine;
  workgroupBarrier();
  if (lane >= ROWS || first_row + lane > last || (thread / LANES) % 2u != 0u) { return; }
  if (wanted >= params.columns) { return; }
  store(first_row + lane, column, vec2<f32>(mine, partial[thread + LANES].x));
}
