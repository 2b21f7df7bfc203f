// Where attention over a share of the positions goes: sums [splits, queries, head size], and
// parts [splits, queries]: highest score and sum of weights (input_parts.wgsl reads both).

@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> parts: array<vec2<f32>>;

fn put(split: u32, index: u32, i: u32, sum: vec4<f32>, total: f32) {
  sums[(split * params.queries + index) * 2u * WIDTH8 + i] = sum;
}
fn put_share(split: u32, index: u32, highest: f32, total: f32) {
  parts[split * params.queries + index] = vec2<f32>(highest, total);
}
