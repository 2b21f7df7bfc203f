// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for one token, W8A8 GEMV as
// linear_w8a8_gemv_cpu.wgsl, for CPU adapters that emulate `dot4I8Packed`, for which SwiftShader
// takes 52 instructions: products of floats instead, which are exact.
//
// Formula:  sum[m, n] = Σ_blocks scale_x scale_w Σ_32 q_x q_w, the inner sum of whole numbers
//           below 2^24, exact in f32, and the outer one in the order of
//           linear_w8a8_gemv_cpu.wgsl: the same bits
// Bindings: as linear_w8a8_gemv_cpu.wgsl
// Threads:  thread (x) -> 4 outputs, workgroup (y) -> token
// Limits:   as linear_w8a8_gemv_cpu.wgsl

const THREADS: u32 = 16u;
override BLOCKS: u32 = 384u; // of a token, at most 384
//!include "byte_masks.wgsl"
//!include "masked_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "norm_moments.wgsl"
//!include "quantize_activations.wgsl"

var<workgroup> low: array<vec4<u32>, BLOCKS>;
var<workgroup> high: array<vec4<u32>, BLOCKS>;
var<workgroup> scales: array<f32, BLOCKS>;
var<workgroup> excess: array<f32, BLOCKS>; // of the product with any block of weights

fn signed_words(four: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(signed_bytes(four.x), signed_bytes(four.y), signed_bytes(four.z),
                     signed_bytes(four.w));
}

fn excess_of(half: vec4<u32>) -> f32 {
  let x = signed_words(half);
  return dot(EXCESS_EVEN * (x[0] + x[2]) + EXCESS_ODD * (x[1] + x[3]),
             vec4<f32>(1.0, 0x1p-8, 0x1p-16, 0x1p-24));
}

// Products of four blocks with half a block of x: few numbers are live at a time.
fn half_products(i: vec4<u32>, half: u32, x: mat4x4<f32>) -> vec4<f32> {
  return vec4<f32>(half_product(i.x, half, x), half_product(i.y, half, x),
                   half_product(i.z, half, x), half_product(i.w, half, x));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let m = group.y;
  var norm = vec2<f32>(0.0, 1.0);
  if (NORM) { norm = norm_of(m, thread); }
  for (var i = thread; i < BLOCKS; i += THREADS) {
    let block = rounded_block(m, i, norm);
    low[i] = block.low;
    high[i] = block.high;
    scales[i] = block.scale;
    excess[i] = excess_of(block.low) + excess_of(block.high);
  }
  workgroupBarrier();
  let n = 4u * (THREADS * group.x + thread);
  if (n >= params.out_features) { return; }
  // Outputs past the end repeat the last one and are not stored.
  let last = params.out_features - 1u;
  let first = min(vec4<u32>(n) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last)) * BLOCKS;

  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < BLOCKS; i++) {
    let at = first + i;
    let whole = half_products(at, 0u, signed_words(low[i]))
              + half_products(at, 1u, signed_words(high[i])) - excess[i];
    sum += scales[i] * (whole * vec4<f32>(scale_of(at.x), scale_of(at.y), scale_of(at.z),
                                          scale_of(at.w)));
  }
  store(m, n, sum.xy);
  if (n + 2u < params.out_features) { store(m, n + 2u, sum.zw); }
}
