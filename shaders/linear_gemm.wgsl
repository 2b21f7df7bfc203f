// Linear layer y = x Wᵀ (+ what `store` adds) for many rows: tiles in workgroup memory.
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl without NORM, or input_parts.wgsl · weights
//           [columns, 8 * depth8] (variant `weight`) · the rest by variant `store`:
//           store_plain.wgsl, store_qkv.wgsl or store_logits.wgsl
// Threads:  16 x 8 a workgroup; workgroup (x, y) -> 64 columns x 64 rows, thread -> 4 x 8 of them
//           (columns 2 tx and 32 + 2 tx and the ones after, rows ty + 8 i)
// Limits:   columns <= 64 * 65,535, rows <= 64 * 65,535
//
// What limits a tile that memory feeds is how fast workgroup memory does: a GPU reads 32 words there
// while it does 128 multiply-adds. 4 x 8 outputs take 12 words for 32 multiply-adds (4 x 4: 8 for
// 16; 8 x 8: 16 for 64, but half the threads to a tile, or tiles twice as large: of 768 columns and
// 512 rows there are 96 now, already fewer than a large GPU has cores). All of them are vec4: an
// instruction for 11 multiply-adds. Tiles lie as x and W do; turning four lines of W for `plus` is
// but renaming registers. The next tiles are on their way from memory while these are multiplied.
// The eight sums have names of their own: an array that a loop indexes may leave the registers
// (1.4 to 1.5 times the time of the whole kernel, measured on llvmpipe).

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "plus.wgsl"

const TILE: u32 = 64u;
const PITCH: u32 = 5u; // vec4 from line to line: 4 would put every other one into the same banks

var<workgroup> x_tile: array<vec4<f32>, TILE * PITCH>; // [row, depth / 4]
var<workgroup> w_tile: array<vec4<f32>, TILE * PITCH>; // [column, depth / 4], odd columns last

fn x_part(row: u32, k: u32) -> mat2x4<f32> {
  if (k >= params.depth8) { return mat2x4<f32>(); }
  return read8(row, k);
}

fn w_part(column: u32, k: u32) -> mat2x4<f32> {
  if (k >= params.depth8) { return mat2x4<f32>(); }
  return weights8(column * params.depth8 + k);
}

@compute @workgroup_size(16, 8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let line = thread / 2u; // which line of each tile this thread loads,
  let part = thread % 2u; // and which eight of its 16 depths
  let to = line * PITCH + 2u * part;
  let row = min(group.y * TILE + line, params.rows - 1u);
  let column = min(group.x * TILE + 2u * (line % 32u) + line / 32u, params.columns - 1u);

  var s0 = vec4<f32>(0.0); // four columns each, of row ty,
  var s1 = vec4<f32>(0.0); // ty + 8,
  var s2 = vec4<f32>(0.0); // and so on
  var s3 = vec4<f32>(0.0);
  var s4 = vec4<f32>(0.0);
  var s5 = vec4<f32>(0.0);
  var s6 = vec4<f32>(0.0);
  var s7 = vec4<f32>(0.0);
  var xs = x_part(row, part);
  var ws = w_part(column, part);
  for (var k8 = 0u; k8 < params.depth8; k8 += 2u) {
    x_tile[to] = xs[0];
    x_tile[to + 1u] = xs[1];
    w_tile[to] = ws[0];
    w_tile[to + 1u] = ws[1];
    workgroupBarrier();
    xs = x_part(row, k8 + 2u + part);
    ws = w_part(column, k8 + 2u + part);
    for (var k4 = 0u; k4 < 4u; k4++) {
      let w = local.x * PITCH + k4;
      let at = local.y * PITCH + k4;
      let terms = transpose(mat4x4<f32>(w_tile[w], w_tile[w + 32u * PITCH],
                                        w_tile[w + 16u * PITCH], w_tile[w + 48u * PITCH]));
      s0 = plus(s0, terms, x_tile[at]);
      s1 = plus(s1, terms, x_tile[at + 8u * PITCH]);
      s2 = plus(s2, terms, x_tile[at + 16u * PITCH]);
      s3 = plus(s3, terms, x_tile[at + 24u * PITCH]);
      s4 = plus(s4, terms, x_tile[at + 32u * PITCH]);
      s5 = plus(s5, terms, x_tile[at + 40u * PITCH]);
      s6 = plus(s6, terms, x_tile[at + 48u * PITCH]);
      s7 = plus(s7, terms, x_tile[at + 56u * PITCH]);
    }
    workgroupBarrier();
  }

  var sums = array<vec4<f32>, 8>(s0, s1, s2, s3, s4, s5, s6, s7);
  let first = group.x * TILE + 2u * local.x;
  for (var i = 0u; i < 8u; i++) {
    let row = group.y * TILE + local.y + 8u * i;
    if (row >= params.rows) { break; }
    if (first < params.columns) { store(row, first, sums[i].xy); }
    if (first + 32u < params.columns) { store(row, first + 32u, sums[i].zw); }
  }
}
