// What a linear layer multiplies: rows of x, as they are or (NORM) as LayerNorm would give them.
//
// LayerNorm follows the sums. For any number s, with n, mean and d = sqrt(var + epsilon) of the row,
//   Σ_k W[c, k] ((x_k - mean) / d * gain_k + b_k)
//     = (Σ_k W[c, k] gain_k (x_k - s) - (mean - s) F[c]) / d + G[c],
// where F[c] = Σ_k W[c, k] gain_k and G[c] = Σ_k W[c, k] b_k + bias[c] depend on the weights alone
// (`bias` holds G, then F). So the kernel that multiplies gathers the moments on its way, or while it
// makes the row ready: no other dispatch comes first. s is the row's first element, which bounds what
// cancels: the mean of (x - s)^2 is at most (n + 1) var.

override NORM: bool = false;
override DERIVED: bool = NORM; // an element is more than a load

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> gain: array<vec4<f32>>;

// Group k of eight elements of a row.
fn read8(row: u32, k: u32) -> mat2x4<f32> {
  let at = 2u * (row * params.depth8 + k);
  return mat2x4<f32>(x[at], x[at + 1u]);
}

// Group k of a row, x - shift or weights, with the gain: one of the two factors gets it.
fn gained(a: mat2x4<f32>, k: u32) -> mat2x4<f32> {
  if (!NORM) { return a; }
  return mat2x4<f32>(a[0] * gain[2u * k], a[1] * gain[2u * k + 1u]);
}

fn shift_of(row: u32) -> f32 {
  if (!NORM) { return 0.0; }
  return x[2u * row * params.depth8].x;
}

// x - shift, but 0 in the padding.
fn shifted(a: mat2x4<f32>, shift: f32, k: u32) -> mat2x4<f32> {
  let low = vec4<u32>(8u * k) + vec4<u32>(0u, 1u, 2u, 3u);
  let all = mat2x4<f32>(a[0] - shift, a[1] - shift);
  if (8u * k + 8u <= params.width) { return all; }
  return mat2x4<f32>(select(vec4<f32>(0.0), all[0], low < vec4<u32>(params.width)),
                     select(vec4<f32>(0.0), all[1], low + 4u < vec4<u32>(params.width)));
}

// What eight elements of x - shift add to its moments: their sum and that of their squares.
fn moments8(a: mat2x4<f32>) -> vec2<f32> {
  return vec2<f32>(dot(a[0] + a[1], vec4<f32>(1.0)), dot(a[0], a[0]) + dot(a[1], a[1]));
}

// Of a row's moments: the mean of x - shift, and 1 / d.
fn mean_and_inverse(moments: vec2<f32>) -> vec2<f32> {
  let mean = moments.x / f32(params.width);
  let variance = max(moments.y / f32(params.width) - mean * mean, 0.0);
  return vec2<f32>(mean, inverseSqrt(variance + params.epsilon));
}
