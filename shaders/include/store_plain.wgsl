// Where a linear layer's outputs go: bias, activation, residual, row-major result.
// Columns are numbered within this dispatch; `first` is the column the weights begin at, `total`
// how many there are in all; `width` and `epsilon` belong to input_plain.wgsl.

//!include "activation.wgsl"

override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;

struct Params {
  rows: u32, columns: u32, depth8: u32, first: u32, total: u32, width: u32, epsilon: f32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

fn store_one(row: u32, column: u32, sum: f32) {
  let c = params.first + column;
  let i = row * params.total + c;
  var value = sum;
  if (HAS_BIAS) { value += bias[c]; }
  value = activate(value);
  if (HAS_RESIDUAL) { value += residual[i]; }
  result[i] = value;
}

// Two neighbouring columns, the first of them even; the second may be past the end.
fn store(row: u32, column: u32, sum: vec2<f32>) {
  store_one(row, column, sum.x);
  if (column + 1u < params.columns) { store_one(row, column + 1u, sum.y); }
}
