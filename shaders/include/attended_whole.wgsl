// Where attention over all positions goes: result [queries, head size].

@group(0) @binding(5) var<storage, read_write> result: array<vec4<f32>>;

fn put(split: u32, index: u32, i: u32, sum: vec4<f32>, total: f32) {
  result[index * 2u * WIDTH8 + i] = sum / total;
}
fn put_share(split: u32, index: u32, highest: f32, total: f32) {}
