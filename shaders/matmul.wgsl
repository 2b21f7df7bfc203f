// Matrix product of a batch of matrices: 16 x 16 tiles in workgroup memory.
//
// Formula:  result[batch, m, n] = Σ_k a[batch, m, k] b[batch, k, n], f32 accumulation
// Bindings: a [batches, rows, inner] · b [batches, inner, columns] · result [batches, rows,
//           columns], all f32; `a_step`, `b_step`: elements from one matrix to the next (0: one
//           matrix for all)
// Threads:  16 x 16, one element each; workgroup (x, y) -> tile y * workgroups.x + x, tiles
//           numbered [batch, row, column]
// Limits:   none

//!include "matmul_bindings.wgsl"

const TILE: u32 = 16u;

var<workgroup> a_tile: array<f32, 256>;
var<workgroup> b_tile: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn main(@builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let across = (params.columns + TILE - 1u) / TILE;
  let down = (params.rows + TILE - 1u) / TILE;
  let tile = group.y * groups.x + group.x;
  let batch = tile / (across * down);
  if (batch >= params.batches) { return; }
  let row = (tile / across) % down * TILE + local.y;
  let column = tile % across * TILE + local.x;

  var sum = 0.0;
  for (var k = 0u; k < params.inner; k += TILE) {
    // Outside of a matrix the tiles hold zeros: every thread takes part in the barriers.
    var left = 0.0;
    if (row < params.rows && k + local.x < params.inner) {
      left = a[batch * params.a_step + row * params.inner + k + local.x];
    }
    var right = 0.0;
    if (k + local.y < params.inner && column < params.columns) {
      right = b[batch * params.b_step + (k + local.y) * params.columns + column];
    }
    a_tile[thread] = left;
    b_tile[thread] = right;
    workgroupBarrier();
    for (var i = 0u; i < TILE; i++) {
      sum += a_tile[local.y * TILE + i] * b_tile[i * TILE + local.x];
    }
    workgroupBarrier();
  }
  if (row < params.rows && column < params.columns) {
    result[(batch * params.rows + row) * params.columns + column] = sum;
  }
}
