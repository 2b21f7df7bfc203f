// Linear layer y = x Wᵀ (+ what `store` adds) for many tokens, GEMM: tiles in workgroup memory.
//
// Formula:  sum[m, n] = Σ_k x[m, k] W[n, k], f32 accumulation; then store(m, n, sum)
// Bindings: x by variant `input`: input_plain.wgsl without NORM, or input_partials.wgsl · weights
//           [out_features, in_features] (variant `weight`) · the rest by variant `store`:
//           store_plain.wgsl, store_qkv.wgsl or store_logits.wgsl
// Threads:  16 x 8; workgroup (x, y) -> 64 outputs x ROWS tokens, thread -> 4 x (ROWS / 8)
//           of them (outputs 2 tx, 2 tx + 1, 32 + 2 tx, 33 + 2 tx; tokens ty + 8 i)
// Limits:   ROWS is 16, 32 or 64; out_features <= 64 * 65,535, tokens <= ROWS * 65,535
//
// Bound by the bandwidth of workgroup memory: a GPU reads 32 words there in the time of 128
// multiply-adds. 4 x 8 outputs read 12 words for 32 multiply-adds (4 x 4: 8 for 16; 8 x 8: 16 for
// 64, but that halves the threads of a tile or doubles its size: 768 outputs of 512 tokens are 96
// tiles now, already fewer than a large GPU has cores). Fewer ROWS read more words (32: 16, 16: 24)
// and give more workgroups; a token's sum has the same order for all of them. Every access is a
// vec4: one instruction for 11 multiply-adds. Tiles have the layout of x and W; transposing four
// weight rows for multiply_add only renames registers. The next tiles are loaded while these are
// multiplied. The eight sums have names of their own: an array that a loop indexes may leave the
// registers (1.4 to 1.5 times the time of the whole kernel, measured on llvmpipe).

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "multiply_add.wgsl"

override ROWS: u32 = 64u; // tokens of a tile

const OUTPUTS: u32 = 64u;
const PITCH: u32 = 5u; // vec4 from row to row: with 4 every other row would be in the same banks

var<workgroup> x_tile: array<vec4<f32>, ROWS * PITCH>; // [token, k / 4]
var<workgroup> w_tile: array<vec4<f32>, OUTPUTS * PITCH>; // [output, k / 4], odd outputs last

fn x_group(m: u32, k: u32) -> mat2x4<f32> {
  if (k >= params.in_features8) { return mat2x4<f32>(); }
  return read8(m, k);
}

fn w_group(n: u32, k: u32) -> mat2x4<f32> {
  if (k >= params.in_features8) { return mat2x4<f32>(); }
  return weights8(n * params.in_features8 + k);
}

// Stores the sums of token m and of outputs n, n + 1, n + 32 and n + 33.
fn store_four(m: u32, n: u32, sum: vec4<f32>) {
  if (m >= params.tokens) { return; }
  if (n < params.out_features) { store(m, n, sum.xy); }
  if (n + 32u < params.out_features) { store(m, n + 32u, sum.zw); }
}

@compute @workgroup_size(16, 8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let row = thread / 2u;  // which row of each tile this thread loads,
  let half = thread % 2u; // and which eight of its 16 in_features
  let to = row * PITCH + 2u * half;
  let loads_x = ROWS == OUTPUTS || row < ROWS;
  let m = min(group.y * ROWS + row, params.tokens - 1u);
  let n = min(group.x * OUTPUTS + 2u * (row % 32u) + row / 32u, params.out_features - 1u);

  var s0 = vec4<f32>(0.0); // four outputs each, of token ty,
  var s1 = vec4<f32>(0.0); // ty + 8,
  var s2 = vec4<f32>(0.0); // and so on
  var s3 = vec4<f32>(0.0);
  var s4 = vec4<f32>(0.0);
  var s5 = vec4<f32>(0.0);
  var s6 = vec4<f32>(0.0);
  var s7 = vec4<f32>(0.0);
  var xs = mat2x4<f32>();
  if (loads_x) { xs = x_group(m, half); }
  var ws = w_group(n, half);
  for (var k8 = 0u; k8 < params.in_features8; k8 += 2u) {
    if (loads_x) {
      x_tile[to] = xs[0];
      x_tile[to + 1u] = xs[1];
    }
    w_tile[to] = ws[0];
    w_tile[to + 1u] = ws[1];
    workgroupBarrier();
    if (loads_x) { xs = x_group(m, k8 + 2u + half); }
    ws = w_group(n, k8 + 2u + half);
    for (var k4 = 0u; k4 < 4u; k4++) {
      let w = local.x * PITCH + k4;
      let at = local.y * PITCH + k4;
      let terms = transpose(mat4x4<f32>(w_tile[w], w_tile[w + 32u * PITCH],
                                        w_tile[w + 16u * PITCH], w_tile[w + 48u * PITCH]));
      s0 = multiply_add(s0, terms, x_tile[at]);
      s1 = multiply_add(s1, terms, x_tile[at + 8u * PITCH]);
      if (ROWS > 16u) {
        s2 = multiply_add(s2, terms, x_tile[at + 16u * PITCH]);
        s3 = multiply_add(s3, terms, x_tile[at + 24u * PITCH]);
      }
      if (ROWS > 32u) {
        s4 = multiply_add(s4, terms, x_tile[at + 32u * PITCH]);
        s5 = multiply_add(s5, terms, x_tile[at + 40u * PITCH]);
        s6 = multiply_add(s6, terms, x_tile[at + 48u * PITCH]);
        s7 = multiply_add(s7, terms, x_tile[at + 56u * PITCH]);
      }
    }
    workgroupBarrier();
  }

  let first_n = group.x * OUTPUTS + 2u * local.x;
  let first_m = group.y * ROWS + local.y;
  store_four(first_m, first_n, s0);
  store_four(first_m + 8u, first_n, s1);
  if (ROWS > 16u) {
    store_four(first_m + 16u, first_n, s2);
    store_four(first_m + 24u, first_n, s3);
  }
  if (ROWS > 32u) {
    store_four(first_m + 32u, first_n, s4);
    store_four(first_m + 40u, first_n, s5);
    store_four(first_m + 48u, first_n, s6);
    store_four(first_m + 56u, first_n, s7);
  }
}
