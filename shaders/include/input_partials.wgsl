// Input of a linear layer: attention that attention.wgsl left as SPLITS split-K partials, combined.
// Each is a sum weighted by exp(score - highest) over some of the positions; `partial_stats` holds
// that highest score and the sum of the weights (0: no position visible, sum not written).
//
// Provides: SPLITS, HEADS, NORM, NEEDS_STAGING, x, partial_stats, read8, scale_by_gain, shift_of,
//           subtract_shift, moments8, mean_and_inverse (the last five without effect)
// Needs:    params.in_features8, params.tokens

override SPLITS: u32 = 1u;
override HEADS: u32 = 1u;

const NORM: bool = false;
const NEEDS_STAGING: bool = true; // an element takes more than a load

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // [SPLITS, tokens, in_features]
@group(0) @binding(6) var<storage, read> partial_stats: array<vec2<f32>>; // [SPLITS, tokens, HEADS]

fn read8(m: u32, k: u32) -> mat2x4<f32> {
  let first = m * HEADS + k / (params.in_features8 / HEADS);
  let step = params.tokens * HEADS;
  var highest = -3.0e38;
  for (var s = 0u; s < SPLITS; s++) { highest = max(highest, partial_stats[first + s * step].x); }
  var total = 0.0;
  var sum = mat2x4<f32>();
  for (var s = 0u; s < SPLITS; s++) {
    // No branch: the loads of all partials are in flight at once. A sum that was not written may be
    // NaN, so it is replaced, not weighted by 0. Compared as bits, so that NaN of stats is kept.
    let stats = partial_stats[first + s * step];
    let seen = bitcast<u32>(stats.y) != 0u;
    let at = 2u * ((s * params.tokens + m) * params.in_features8 + k);
    let part = mat2x4<f32>(select(vec4<f32>(0.0), x[at], seen),
                           select(vec4<f32>(0.0), x[at + 1u], seen));
    let weight = select(0.0, exp(stats.x - highest), seen);
    total += weight * stats.y;
    sum += weight * part;
  }
  return sum * (1.0 / total);
}

fn scale_by_gain(a: mat2x4<f32>, k: u32) -> mat2x4<f32> { return a; }
fn shift_of(m: u32) -> f32 { return 0.0; }
fn subtract_shift(a: mat2x4<f32>, shift: f32, k: u32) -> mat2x4<f32> { return a; }
fn moments8(a: mat2x4<f32>) -> vec2<f32> { return vec2<f32>(0.0); }
fn mean_and_inverse(moments: vec2<f32>) -> vec2<f32> { return vec2<f32>(0.0, 1.0); }
