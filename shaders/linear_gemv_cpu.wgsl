// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for one token, GEMV for CPU adapters: four
// outputs a thread, which share the loads of x, as a load costs more than the arithmetic on it.
//
// Formula:  sum[m, n] = Σ_k x[m, k] W[n, k], f32 accumulation; then store(m, n, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_partials.wgsl · weights [out_features,
//           in_features] (variant `weight`) · the rest by variant `store`: store_plain.wgsl,
//           store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 4 outputs, workgroup (y) -> token. A token whose elements take more than
//           a load (NORM, input_partials.wgsl) is first staged in workgroup memory by all threads;
//           only then there is a barrier.
// Limits:   out_features <= 64 * 65,535, tokens <= 65,535; a staged token fits workgroup memory;
//           linear_gemm_cpu.wgsl is faster from two tokens on

const THREADS: u32 = 16u;
//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "folded_norm.wgsl"
//!include "norm_moments.wgsl"
//!include "dot8.wgsl"

// in_features / 4 if NEEDS_STAGING, else 1, as a workgroup begins by zeroing its memory. At most
// 1008, which 16 KiB hold.
override STAGED: u32 = 1008u;

var<workgroup> staged: array<vec4<f32>, STAGED>;

// Returns the token's moments (0 without NORM); every thread must call.
fn stage_token(m: u32, thread: u32) -> vec2<f32> {
  let shift = shift_of(m);
  var own = vec2<f32>(0.0);
  for (var k = thread; k < params.in_features8; k += THREADS) {
    var a = read8(m, k);
    if (NORM) {
      a = subtract_shift(a, shift, k);
      own += moments8(a);
      a = scale_by_gain(a, k);
    }
    staged[2u * k] = a[0];
    staged[2u * k + 1u] = a[1];
  }
  if (NORM) { return moments_of_all(own, thread); }
  workgroupBarrier();
  return own;
}

fn staged8(m: u32, k: u32) -> mat2x4<f32> {
  if (NEEDS_STAGING) { return mat2x4<f32>(staged[2u * k], staged[2u * k + 1u]); }
  return read8(m, k);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>) {
  let m = group.y;
  var moments = vec2<f32>(0.0);
  if (NEEDS_STAGING) { moments = stage_token(m, thread); }
  let n = 4u * (THREADS * group.x + thread);
  if (n >= params.out_features) { return; }
  // Outputs past the end repeat the last one and are not stored.
  let last = params.out_features - 1u;
  let w0 = n * params.in_features8;
  let w1 = min(n + 1u, last) * params.in_features8;
  let w2 = min(n + 2u, last) * params.in_features8;
  let w3 = min(n + 3u, last) * params.in_features8;

  var sum = vec4<f32>(0.0);
  for (var k = 0u; k < params.in_features8; k++) {
    let a = staged8(m, k);
    sum += vec4<f32>(dot8(weights8(w0 + k), a), dot8(weights8(w1 + k), a),
                     dot8(weights8(w2 + k), a), dot8(weights8(w3 + k), a));
  }
  sum = vec4<f32>(
      apply_norm(n, sum.x, moments), apply_norm(min(n + 1u, last), sum.y, moments),
      apply_norm(min(n + 2u, last), sum.z, moments), apply_norm(min(n + 3u, last), sum.w, moments));
  store(m, n, sum.xy);
  if (n + 2u < params.out_features) { store(m, n + 2u, sum.zw); }
}
