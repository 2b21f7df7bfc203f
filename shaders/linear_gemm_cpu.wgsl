// Linear layer y = norm(x) Wᵀ (+ what `store` adds) for several tokens, GEMM for CPU adapters: a
// block of outputs a thread and no barriers, as a load costs ten times the arithmetic on it.
//
// Formula:  sum[m, n] = Σ_k x[m, k] W[n, k], f32 accumulation; then store(m, n, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_partials.wgsl · weights [out_features,
//           in_features] (variant `weight`) · the rest by variant `store`: store_plain.wgsl,
//           store_qkv.wgsl or store_logits.wgsl
// Threads:  thread (x) -> 8 outputs, workgroup (y) -> 4 * QUADS tokens
// Limits:   out_features <= 64 * 65,535, tokens <= 4 * QUADS * 65,535
//
// The sums of the eight outputs have names of their own: as an array that a loop indexes they leave
// the registers, and the kernel takes 1.3 to 2 times as long (measured on llvmpipe).

//!include "weight_{weight}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "folded_norm.wgsl"
//!include "quads.wgsl"

fn read_shifted(m: u32, shift: f32, k: u32) -> mat2x4<f32> {
  let a = read8(m, k);
  if (NORM) { return subtract_shift(a, shift, k); }
  return a;
}

fn quad_of(m: vec4<u32>, shift: vec4<f32>, k: u32) -> Quad {
  return quad(read_shifted(m.x, shift.x, k), read_shifted(m.y, shift.y, k),
              read_shifted(m.z, shift.z, k), read_shifted(m.w, shift.w, k));
}

fn shifts_of(m: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(shift_of(m.x), shift_of(m.y), shift_of(m.z), shift_of(m.w));
}

// Sums of the four tokens' elements, and of their squares.
fn sums_of(x: Quad) -> vec4<f32> { return vec4<f32>(1.0) * x.low + vec4<f32>(1.0) * x.high; }
fn squares_of(x: Quad) -> vec4<f32> {
  return vec4<f32>(dot(x.low[0], x.low[0]), dot(x.low[1], x.low[1]),
                   dot(x.low[2], x.low[2]), dot(x.low[3], x.low[3]))
       + vec4<f32>(dot(x.high[0], x.high[0]), dot(x.high[1], x.high[1]),
                   dot(x.high[2], x.high[2]), dot(x.high[3], x.high[3]));
}

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) thread: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>) {
  let n = thread.x * 8u;
  if (n >= params.out_features) { return; }
  // Tokens and outputs past the end repeat the last one and are not stored.
  let last = params.out_features - 1u;
  let four = vec4<u32>(0u, 1u, 2u, 3u);
  let low = min(vec4<u32>(n) + four, vec4<u32>(last)) * params.in_features8;
  let high = min(vec4<u32>(n + 4u) + four, vec4<u32>(last)) * params.in_features8;
  let m = group.y * QUADS * 4u;
  let tokens0 = min(vec4<u32>(m) + four, vec4<u32>(params.tokens - 1u));
  let tokens1 = min(vec4<u32>(m + 4u) + four, vec4<u32>(params.tokens - 1u));
  let shift0 = shifts_of(tokens0);
  let shift1 = shifts_of(tokens1);

  var sum0 = mat2x4<f32>(); // of output n: see quads.wgsl
  var sum1 = mat2x4<f32>(); // of output n + 1, and so on
  var sum2 = mat2x4<f32>();
  var sum3 = mat2x4<f32>();
  var sum4 = mat2x4<f32>();
  var sum5 = mat2x4<f32>();
  var sum6 = mat2x4<f32>();
  var sum7 = mat2x4<f32>();
  var first0 = vec4<f32>(0.0); // first and second moments of the tokens
  var first1 = vec4<f32>(0.0);
  var second0 = vec4<f32>(0.0);
  var second1 = vec4<f32>(0.0);
  for (var k = 0u; k < params.in_features8; k++) {
    let x0 = quad_of(tokens0, shift0, k);
    var x1 = x0;
    if (QUADS == 2u) { x1 = quad_of(tokens1, shift1, k); }
    if (NORM) {
      first0 += sums_of(x0);
      second0 += squares_of(x0);
      first1 += sums_of(x1);
      second1 += squares_of(x1);
    }
    sum0 = add_products(sum0, scale_by_gain(weights8(low.x + k), k), x0, x1);
    sum1 = add_products(sum1, scale_by_gain(weights8(low.y + k), k), x0, x1);
    sum2 = add_products(sum2, scale_by_gain(weights8(low.z + k), k), x0, x1);
    sum3 = add_products(sum3, scale_by_gain(weights8(low.w + k), k), x0, x1);
    sum4 = add_products(sum4, scale_by_gain(weights8(high.x + k), k), x0, x1);
    sum5 = add_products(sum5, scale_by_gain(weights8(high.y + k), k), x0, x1);
    sum6 = add_products(sum6, scale_by_gain(weights8(high.z + k), k), x0, x1);
    sum7 = add_products(sum7, scale_by_gain(weights8(high.w + k), k), x0, x1);
  }
  var sums = array<mat2x4<f32>, 8>(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7);
  var first = array<vec4<f32>, 2>(first0, first1);
  var second = array<vec4<f32>, 2>(second0, second1);
  for (var i = 0u; i < 4u * QUADS; i++) {
    if (m + i >= params.tokens) { break; }
    for (var j = 0u; j < 8u; j += 2u) {
      if (n + j > last) { break; }
      let one = first[i / 4u][i % 4u];
      let two = second[i / 4u][i % 4u];
      store(m + i, n + j, vec2<f32>(
          apply_norm(n + j, sums[j][i / 4u][i % 4u], vec2<f32>(one, two)),
          apply_norm(min(n + j + 1u, last), sums[j + 1u][i / 4u][i % 4u], vec2<f32>(one, two))));
    }
  }
}
