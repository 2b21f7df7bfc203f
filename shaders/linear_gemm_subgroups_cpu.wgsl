// Linear layer y = x Wᵀ (+ what `store` adds) for more than eight tokens, GEMM for CPU adapters
// with subgroups: the threads of a subgroup load different tokens and pass them to each other.
//
// Formula:  sum[m, n] = Σ_k x[m, k] W[n, k], f32 accumulation in the order of linear_gemm_cpu.wgsl,
//           so with the same bits; then store(m, n, sum)
// Bindings: x by variant `input`: input_plain.wgsl without NORM, or input_partials.wgsl · weights
//           [out_features, in_features] (variant `weight`) · the rest by variant `store`:
//           store_plain.wgsl, store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 4 outputs, workgroup (y) -> 16 tokens
// Limits:   out_features <= 32 * 65,535, tokens <= 16 * 65,535
//
// A load costs tens of multiply-adds. linear_gemm_cpu.wgsl loads 16 words of weights and 8 of x for
// 128 multiply-adds (f32), this kernel 8 and 8. Measured on llvmpipe, 3072 x 768: 0.42 (f32) to
// 0.55 (q8) of its time for 16 tokens; 8 outputs a thread, or 32 tokens, are slower: more sums than
// registers.

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "quads.wgsl"
//!include "lane_quads.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
  let n = thread.x * LANE_OUTPUTS;
  // Outputs past the end repeat the last one and are not stored: their threads load x.
  let row = min(vec4<u32>(n) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.out_features - 1u))
          * params.in_features8;
  let first = group.y * LANE_QUADS * 4u;
  let m = lane_tokens(first, lane, params.tokens);

  var sum0 = mat4x4<f32>(); // of output n: see lane_quads.wgsl
  var sum1 = mat4x4<f32>(); // of output n + 1, and so on
  var sum2 = mat4x4<f32>();
  var sum3 = mat4x4<f32>();
  for (var k = 0u; k < params.in_features8; k++) {
    let x0 = lane_quad(read8(m.x, k));
    let x1 = lane_quad(read8(m.y, k));
    let x2 = lane_quad(read8(m.z, k));
    let x3 = lane_quad(read8(m.w, k));
    sum0 = add_lane_products(sum0, weights8(row.x + k), x0, x1, x2, x3);
    sum1 = add_lane_products(sum1, weights8(row.y + k), x0, x1, x2, x3);
    sum2 = add_lane_products(sum2, weights8(row.z + k), x0, x1, x2, x3);
    sum3 = add_lane_products(sum3, weights8(row.w + k), x0, x1, x2, x3);
  }
  if (n >= params.out_features) { return; }
  store_lane_sums(first, n, sum0, sum1, sum2, sum3);
}
