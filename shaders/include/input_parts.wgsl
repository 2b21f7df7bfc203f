// What a linear layer multiplies: attention that attention.wgsl left in SPLITS parts, put together.
// Each part is a sum weighted by exp(score - highest) over some of the positions; with it, in
// `parts`, stand that highest score and the sum of the weights (0: nothing seen, sum not written).

override SPLITS: u32 = 1u;
override HEADS: u32 = 1u;

const NORM: bool = false;
const DERIVED: bool = true; // an element is more than a load

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // [SPLITS, rows, 8 * depth8]
@group(0) @binding(6) var<storage, read> parts: array<vec2<f32>>; // [SPLITS, rows, HEADS]

fn read8(row: u32, k: u32) -> mat2x4<f32> {
  let part = row * HEADS + k / (params.depth8 / HEADS);
  let step = params.rows * HEADS;
  var highest = -3.0e38;
  for (var s = 0u; s < SPLITS; s++) { highest = max(highest, parts[part + s * step].x); }
  var total = 0.0;
  var sum = mat2x4<f32>();
  for (var s = 0u; s < SPLITS; s++) {
    let seen = parts[part + s * step];
    if (bitcast<u32>(seen.y) != 0u) { // by its bits: NaN is not lost
      let weight = exp(seen.x - highest);
      let at = 2u * ((s * params.rows + row) * params.depth8 + k);
      total += weight * seen.y;
      sum += weight * mat2x4<f32>(x[at], x[at + 1u]);
    }
  }
  return sum * (1.0 / total);
}

fn gained(a: mat2x4<f32>, k: u32) -> mat2x4<f32> { return a; }
fn shift_of(row: u32) -> f32 { return 0.0; }
fn shifted(a: mat2x4<f32>, shift: f32, k: u32) -> mat2x4<f32> { return a; }
fn moments8(a: mat2x4<f32>) -> vec2<f32> { return vec2<f32>(0.0); }
fn mean_and_inverse(moments: vec2<f32>) -> vec2<f32> { return vec2<f32>(0.0, 1.0); }
