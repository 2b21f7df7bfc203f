// Linear layer y = x Wᵀ (+ what `store` adds) for many rows: tiles in workgroup memory.
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x [rows, 8 * depth8] f32 (variant `input`: input_plain.wgsl without NORM) · weights
//           [columns, 8 * depth8] (variant `weight`) · the rest by variant `store`:
//           store_plain.wgsl or store_qkv.wgsl
// Threads:  16 x 16 a workgroup; workgroup (x, y) -> 64 columns x 64 rows, thread -> 4 x 4 of them
//           (rows ty + 16 i, columns 2 tx and 32 + 2 tx and the ones after: neighbours read
//           neighbouring words, and two outputs lie side by side)
// Limits:   columns and rows <= 64 * 65,535

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"

const TILE: u32 = 64u;
const PITCH: u32 = 68u; // words between tile rows: 64 would put a column into one memory bank

var<workgroup> x_tile: array<f32, 16u * PITCH>; // [k, row]
var<workgroup> w_tile: array<f32, 16u * PITCH>; // [k, column]

@compute @workgroup_size(16, 16)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let depth4 = params.depth8 * 2u;
  let load_line = thread / 4u; // which row of x this thread loads,
  let load_k = thread % 4u; //    and which four of the 16 depths
  let x_line = min(group.y * TILE + load_line, params.rows - 1u) * depth4;
  // Weights come eight at a time: the first half of the threads loads them.
  let w_line = min(group.x * TILE + thread / 2u, params.columns - 1u) * params.depth8;

  var sum: mat4x4<f32>; // [j] holds a column, component i row ty + 16 i
  for (var k8 = 0u; k8 < params.depth8; k8 += 2u) {
    let k4 = 2u * k8 + load_k;
    var xs = vec4<f32>(0.0);
    if (k4 < depth4) { xs = x[x_line + k4]; }
    for (var i = 0u; i < 4u; i++) { x_tile[(4u * load_k + i) * PITCH + load_line] = xs[i]; }
    if (thread < 128u) {
      let k = k8 + thread % 2u;
      var w = mat2x4<f32>();
      if (k < params.depth8) { w = weights8(w_line + k); }
      let line = (thread % 2u) * 8u * PITCH + thread / 2u;
      for (var i = 0u; i < 4u; i++) {
        w_tile[line + i * PITCH] = w[0][i];
        w_tile[line + (i + 4u) * PITCH] = w[1][i];
      }
    }
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let at_x = k * PITCH + local.y;
      let at_w = k * PITCH + 2u * local.x;
      let a = vec4<f32>(x_tile[at_x], x_tile[at_x + 16u], x_tile[at_x + 32u], x_tile[at_x + 48u]);
      sum[0] += a * w_tile[at_w];
      sum[1] += a * w_tile[at_w + 1u];
      sum[2] += a * w_tile[at_w + 32u];
      sum[3] += a * w_tile[at_w + 33u];
    }
    workgroupBarrier();
  }
  for (var j = 0u; j < 2u; j++) {
    let column = group.x * TILE + 2u * local.x + 32u * j;
    for (var i = 0u; i < 4u; i++) {
      let row = group.y * TILE + local.y + 16u * i;
      if (row < params.rows && column < params.columns) {
        store(row, column, vec2<f32>(sum[2u * j][i], sum[2u * j + 1u][i]));
      }
    }
  }
}
