// What a LayerNorm that is folded into a linear layer does to a sum (input_plain.wgsl).

// The product with the normalised row, from that with x - shift and the row's moments.
fn normed(column: u32, sum: f32, moments: vec2<f32>) -> f32 {
  if (!NORM) { return sum; }
  let row = mean_and_inverse(moments);
  return (sum - row.x * bias[params.total + params.first + column]) * row.y;
}
