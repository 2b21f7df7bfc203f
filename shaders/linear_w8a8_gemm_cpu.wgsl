// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for several tokens, W8A8 GEMM for CPU adapters:
// x was rounded to int8 by quantize_activations_cpu.wgsl, W is stored in blocks. A block of outputs
// a thread, as in linear_gemm_cpu.wgsl.
//
// Formula:  sum[m, n] = Σ_blocks scale_x scale_w Σ_32 q_x q_w; then store(m, n, sum). The inner sum
//           is of whole numbers below 2^24, exact in f32, and the outer one is taken in the order
//           of linear_w8a8_gemv_cpu.wgsl: both give the same bits.
// Bindings: x [tokens, in_features] int8, four in a word · scales [tokens, in_features / 32] f32 ·
//           weights [out_features, in_features] (variant `weight`: q8, q4) · the rest by variant
//           `store`: store_plain.wgsl, store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 8 outputs, workgroup (y) -> 4 * QUADS tokens
// Limits:   out_features <= 64 * 65,535, tokens <= 4 * QUADS * 65,535, in_features a multiple of 32

//!include "levels_{weight}.wgsl"
//!include "store_{store}.wgsl"
//!include "quads.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> scales: array<f32>;

fn read8(m: u32, k: u32) -> mat2x4<f32> {
  let four = x[m * params.in_features8 + k];
  return mat2x4<f32>(vec4<f32>(unpack4xI8(four.x)), vec4<f32>(unpack4xI8(four.y)));
}

fn quad_of(m: vec4<u32>, k: u32) -> Quad {
  return quad(read8(m.x, k), read8(m.y, k), read8(m.z, k), read8(m.w, k));
}

fn scales_of(m: vec4<u32>, block: u32) -> vec4<f32> {
  let at = m * (params.in_features8 / 4u) + block;
  return vec4<f32>(scales[at.x], scales[at.y], scales[at.z], scales[at.w]);
}

// The sums of a n, and the inner sums of a block scaled by the weights' scale and the m'.
fn plus_block(sums: mat2x4<f32>, block: mat2x4<f32>, scale: f32, scale0: vec4<f32>,
              scale1: vec4<f32>) -> mat2x4<f32> {
  var result = sums;
  result[0] += scale0 * (block[0] * scale);
  if (QUADS == 2u) { result[1] += scale1 * (block[1] * scale); }
  return result;
}

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let n = thread.x * 8u;
  if (n >= params.out_features) { return; }
  // Tokens and outputs past the end repeat the last one and are not stored.
  let last = params.out_features - 1u;
  let blocks = params.in_features8 / 4u;
  let four = vec4<u32>(0u, 1u, 2u, 3u);
  let low = min(vec4<u32>(n) + four, vec4<u32>(last)) * blocks;
  let high = min(vec4<u32>(n + 4u) + four, vec4<u32>(last)) * blocks;
  let m = group.y * QUADS * 4u;
  let tokens0 = min(vec4<u32>(m) + four, vec4<u32>(params.tokens - 1u));
  let tokens1 = min(vec4<u32>(m + 4u) + four, vec4<u32>(params.tokens - 1u));

  var sum0 = mat2x4<f32>(); // of n j: see quads.wgsl
  var sum1 = mat2x4<f32>();
  var sum2 = mat2x4<f32>();
  var sum3 = mat2x4<f32>();
  var sum4 = mat2x4<f32>();
  var sum5 = mat2x4<f32>();
  var sum6 = mat2x4<f32>();
  var sum7 = mat2x4<f32>();
  for (var i = 0u; i < blocks; i++) {
    var block0 = mat2x4<f32>(); // inner sums of this block
    var block1 = mat2x4<f32>();
    var block2 = mat2x4<f32>();
    var block3 = mat2x4<f32>();
    var block4 = mat2x4<f32>();
    var block5 = mat2x4<f32>();
    var block6 = mat2x4<f32>();
    var block7 = mat2x4<f32>();
    let at0 = first_group_of(low.x + i);
    let at1 = first_group_of(low.y + i);
    let at2 = first_group_of(low.z + i);
    let at3 = first_group_of(low.w + i);
    let at4 = first_group_of(high.x + i);
    let at5 = first_group_of(high.y + i);
    let at6 = first_group_of(high.z + i);
    let at7 = first_group_of(high.w + i);
    for (var g = 0u; g < 4u; g++) {
      let x0 = quad_of(tokens0, 4u * i + g);
      var x1 = x0;
      if (QUADS == 2u) { x1 = quad_of(tokens1, 4u * i + g); }
      block0 = add_products(block0, levels8(at0 + g), x0, x1);
      block1 = add_products(block1, levels8(at1 + g), x0, x1);
      block2 = add_products(block2, levels8(at2 + g), x0, x1);
      block3 = add_products(block3, levels8(at3 + g), x0, x1);
      block4 = add_products(block4, levels8(at4 + g), x0, x1);
      block5 = add_products(block5, levels8(at5 + g), x0, x1);
      block6 = add_products(block6, levels8(at6 + g), x0, x1);
      block7 = add_products(block7, levels8(at7 + g), x0, x1);
    }
    let scale0 = scales_of(tokens0, i);
    var scale1 = scale0;
    if (QUADS == 2u) { scale1 = scales_of(tokens1, i); }
    sum0 = plus_block(sum0, block0, scale_of(low.x + i), scale0, scale1);
    sum1 = plus_block(sum1, block1, scale_of(low.y + i), scale0, scale1);
    sum2 = plus_block(sum2, block2, scale_of(low.z + i), scale0, scale1);
    sum3 = plus_block(sum3, block3, scale_of(low.w + i), scale0, scale1);
    sum4 = plus_block(sum4, block4, scale_of(high.x + i), scale0, scale1);
    sum5 = plus_block(sum5, block5, scale_of(high.y + i), scale0, scale1);
    sum6 = plus_block(sum6, block6, scale_of(high.z + i), scale0, scale1);
    sum7 = plus_block(sum7, block7, scale_of(high.w + i), scale0, scale1);
  }
  var sums = array<mat2x4<f32>, 8>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7);
  for (var i = 0u; i < 4u * QUADS; i++) {
    if (m + i >= params.tokens) { break; }
    for (var j = 0u; j < 8u; j += 2u) {
      if (n + j > last) { break; }
      store(m + i, n + j, vec2<f32>(sums[j][i / 4u][i % 4u], sums[j + 1u][i / 4u][i % 4u]));
    }
  }
}
