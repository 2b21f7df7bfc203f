// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for more than eight tokens, W8A8 GEMM for CPU
// adapters with subgroups: linear_w8a8_gemm_cpu.wgsl, but with loads of x shared as in
// linear_gemm_subgroups_cpu.wgsl.
//
// Formula:  sum[m, n] = Σ_blocks scale_x scale_w Σ_32 q_x q_w; then store(m, n, sum). The same bits
//           as linear_w8a8_gemm_cpu.wgsl: the inner sum is of whole numbers below 2^24, exact in
//           f32, and the outer one is taken in the same order.
// Bindings: x [tokens, in_features] int8, four in a word · scales [tokens, in_features / 32] f32 ·
//           weights [out_features, in_features] (variant `weight`: q8, q4) · the rest by variant
//           `store`: store_plain.wgsl, store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 4 outputs, workgroup (y) -> 16 tokens
// Limits:   out_features <= 32 * 65,535, tokens <= 16 * 65,535, in_features a multiple of 32

//!include "levels_{weight}.wgsl"
//!include "store_{store}.wgsl"
//!include "quads.wgsl"
//!include "lane_quads.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> scales: array<f32>;

fn read8(m: u32, k: u32) -> mat2x4<f32> {
  let four = x[m * params.in_features8 + k];
  return mat2x4<f32>(vec4<f32>(unpack4xI8(four.x)), vec4<f32>(unpack4xI8(four.y)));
}

// The sums of an output [quad], and the inner sums of a block scaled by the scales of the weights
// and of the tokens.
fn plus_block(sums: mat4x4<f32>, block: mat4x4<f32>, scale: f32, x_scales: mat4x4<f32>)
    -> mat4x4<f32> {
  return mat4x4<f32>(
      sums[0] + x_scales[0] * (block[0] * scale), sums[1] + x_scales[1] * (block[1] * scale),
      sums[2] + x_scales[2] * (block[2] * scale), sums[3] + x_scales[3] * (block[3] * scale));
}

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
  let n = thread.x * LANE_OUTPUTS;
  let blocks = params.in_features8 / 4u;
  // Outputs past the end repeat the last one and are not stored: their threads load x.
  let row = min(vec4<u32>(n) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.out_features - 1u))
          * blocks;
  let first = group.y * LANE_QUADS * 4u;
  let m = lane_tokens(first, lane, params.tokens);

  var sum0 = mat4x4<f32>(); // of output n: see lane_quads.wgsl
  var sum1 = mat4x4<f32>(); // of output n + 1, and so on
  var sum2 = mat4x4<f32>();
  var sum3 = mat4x4<f32>();
  for (var i = 0u; i < blocks; i++) {
    var block0 = mat4x4<f32>(); // inner sums of this block
    var block1 = mat4x4<f32>();
    var block2 = mat4x4<f32>();
    var block3 = mat4x4<f32>();
    let at = vec4<u32>(first_group_of(row.x + i), first_group_of(row.y + i),
                       first_group_of(row.z + i), first_group_of(row.w + i));
    for (var g = 0u; g < 4u; g++) {
      let x0 = lane_quad(read8(m.x, 4u * i + g));
      let x1 = lane_quad(read8(m.y, 4u * i + g));
      let x2 = lane_quad(read8(m.z, 4u * i + g));
      let x3 = lane_quad(read8(m.w, 4u * i + g));
      block0 = add_lane_products(block0, levels8(at.x + g), x0, x1, x2, x3);
      block1 = add_lane_products(block1, levels8(at.y + g), x0, x1, x2, x3);
      block2 = add_lane_products(block2, levels8(at.z + g), x0, x1, x2, x3);
      block3 = add_lane_products(block3, levels8(at.w + g), x0, x1, x2, x3);
    }
    let x_scales = mat4x4<f32>(
        lane_values(scales[m.x * blocks + i]), lane_values(scales[m.y * blocks + i]),
        lane_values(scales[m.z * blocks + i]), lane_values(scales[m.w * blocks + i]));
    sum0 = plus_block(sum0, block0, scale_of(row.x + i), x_scales);
    sum1 = plus_block(sum1, block1, scale_of(row.y + i), x_scales);
    sum2 = plus_block(sum2, block2, scale_of(row.z + i), x_scales);
    sum3 = plus_block(sum3, block3, scale_of(row.w + i), x_scales);
  }
  if (n >= params.out_features) { return; }
  store_lane_sums(first, n, sum0, sum1, sum2, sum3);
}
