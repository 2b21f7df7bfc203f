// Output of attention as split-K partials, each over some of the positions: partial_sums [splits,
// queries, head_dim], and partial_stats [splits, queries]: highest score and sum of the weights.
// input_partials.wgsl combines them.
//
// Provides: partial_sums, partial_stats, write_output, write_stats
// Needs:    HEAD_DIM8, params.queries

@group(0) @binding(5) var<storage, read_write> partial_sums: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partial_stats: array<vec2<f32>>;

fn write_output(split: u32, index: u32, i: u32, sum: vec4<f32>, total: f32) {
  partial_sums[(split * params.queries + index) * 2u * HEAD_DIM8 + i] = sum;
}
fn write_stats(split: u32, index: u32, highest: f32, total: f32) {
  partial_stats[split * params.queries + index] = vec2<f32>(highest, total);
}
