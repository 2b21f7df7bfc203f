// Input of a linear layer: tokens of x, as they are or (NORM) as LayerNorm would give them.
//
// Provides: NORM, NEEDS_STAGING, x, gain, read8, scale_by_gain, shift_of, subtract_shift, moments8,
//           mean_and_inverse
// Needs:    params.epsilon, params.in_features8, params.norm_features
//
// LayerNorm is applied after the sums. For any number s, with K = norm_features, mean and
// d = sqrt(var + epsilon) of the token,
//   Σ_k W[n, k] ((x_k - mean) / d * gain_k + b_k)
//     = (Σ_k W[n, k] gain_k (x_k - s) - (mean - s) F[n]) / d + G[n],
// where F[n] = Σ_k W[n, k] gain_k and G[n] = Σ_k W[n, k] b_k + bias[n] depend on the weights alone
// (`bias` holds G, then F; folded_norm.wgsl). So the kernel that multiplies sums up the moments on
// its way, or while it stages the token: no other dispatch comes first. s is the token's first
// element, which bounds the cancellation: the mean of (x - s)^2 is at most (K + 1) var.

override NORM: bool = false;
override NEEDS_STAGING: bool = NORM; // an element takes more than a load

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> gain: array<vec4<f32>>;

// Group k of eight elements of token m.
fn read8(m: u32, k: u32) -> mat2x4<f32> {
  let at = 2u * (m * params.in_features8 + k);
  return mat2x4<f32>(x[at], x[at + 1u]);
}

// Group k times the gain: of x - shift or of weights, one of the two factors.
fn scale_by_gain(a: mat2x4<f32>, k: u32) -> mat2x4<f32> {
  if (!NORM) { return a; }
  return mat2x4<f32>(a[0] * gain[2u * k], a[1] * gain[2u * k + 1u]);
}

fn shift_of(m: u32) -> f32 {
  if (!NORM) { return 0.0; }
  return x[2u * m * params.in_features8].x;
}

// x - shift, but 0 in the padding.
fn subtract_shift(a: mat2x4<f32>, shift: f32, k: u32) -> mat2x4<f32> {
  let low = vec4<u32>(8u * k) + vec4<u32>(0u, 1u, 2u, 3u);
  let all = mat2x4<f32>(a[0] - shift, a[1] - shift);
  if (8u * k + 8u <= params.norm_features) { return all; }
  return mat2x4<f32>(select(vec4<f32>(0.0), all[0], low < vec4<u32>(params.norm_features)),
                     select(vec4<f32>(0.0), all[1], low + 4u < vec4<u32>(params.norm_features)));
}

// Sum of eight elements of x - shift, and sum of their squares.
fn moments8(a: mat2x4<f32>) -> vec2<f32> {
  return vec2<f32>(dot(a[0] + a[1], vec4<f32>(1.0)), dot(a[0], a[0]) + dot(a[1], a[1]));
}

// The mean of x - shift, and 1 / d, from a token's moments.
fn mean_and_inverse(moments: vec2<f32>) -> vec2<f32> {
  let mean = moments.x / f32(params.norm_features);
  let variance = max(moments.y / f32(params.norm_features) - mean * mean, 0.0);
  return vec2<f32>(mean, inverseSqrt(variance + params.epsilon));
}
