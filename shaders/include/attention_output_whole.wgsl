// Output of attention over all positions: result [queries, head_dim].
//
// Provides: result, write_output, write_stats (the latter without effect)
// Needs:    HEAD_DIM8

@group(0) @binding(5) var<storage, read_write> result: array<vec4<f32>>;

fn write_output(split: u32, index: u32, i: u32, sum: vec4<f32>, total: f32) {
  result[index * 2u * HEAD_DIM8 + i] = sum / total;
}
fn write_stats(split: u32, index: u32, highest: f32, total: f32) {}
