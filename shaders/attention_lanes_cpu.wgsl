// Attention of each query over keys and values, for CPU adapters and few queries: eight threads a
// query and head, which occupy every core, and one barrier.
//
// Formula:  as attention.wgsl; a thread takes every eighth position, two at a time, and the eight
//           sums are added at the end, each weighted by exp(its highest score - the highest)
// Bindings: as attention.wgsl
// Threads:  8 share one query; workgroup (x, y) -> query * heads + head
// Limits:   HEAD_DIM8 <= 16 (head_dim 128); positions are not split

//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"
//!include "attention_output_whole.wgsl"
//!include "dot8.wgsl"

const LANES: u32 = 8u;

var<workgroup> sums: array<vec4<f32>, 256>; // [4 dimensions, lane]
var<workgroup> lane_stats: array<vec2<f32>, LANES>; // highest score and sum of the weights

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = group.y * groups.x + group.x;
  if (index >= params.queries) { return; }
  let batch_head = batch_head_of(index);
  let count = visible_positions(index);

  var q: array<mat2x4<f32>, 16>;
  for (var i = 0u; i < HEAD_DIM8; i++) {
    let at = (index * HEAD_DIM8 + i) * 2u;
    q[i] = mat2x4<f32>(query[at], query[at + 1u]);
  }
  var sum: array<mat2x4<f32>, 16>;
  var highest = -3.0e38;
  var total = 0.0;
  for (var base = lane; base < count; base += 2u * LANES) {
    let next = min(base + LANES, count - 1u); // past the end: weight 0
    var score = vec2<f32>(0.0);
    for (var i = 0u; i < HEAD_DIM8; i++) {
      score += vec2<f32>(dot8(q[i], key_at(batch_head, base, i)),
                         dot8(q[i], key_at(batch_head, next, i)));
    }
    score = vec2<f32>(masked_score(batch_head, base, score.x),
                      masked_score(batch_head, next, score.y));
    if (base + LANES >= count) { score.y = -3.0e38; }
    let larger = max(highest, max(score.x, score.y));
    let shrink = exp(highest - larger);
    let weight = exp(score - larger);
    total = total * shrink + weight.x + weight.y;
    for (var i = 0u; i < HEAD_DIM8; i++) {
      sum[i] = sum[i] * shrink
          + weight.x * value_at(batch_head, base, i) + weight.y * value_at(batch_head, next, i);
    }
    highest = larger;
  }
  lane_stats[lane] = vec2<f32>(highest, total);
  for (var i = 0u; i < HEAD_DIM8; i++) {
    sums[2u * i * LANES + lane] = sum[i][0];
    sums[(2u * i + 1u) * LANES + lane] = sum[i][1];
  }
  workgroupBarrier();
  for (var j = 0u; j < LANES; j++) { highest = max(highest, lane_stats[j].x); }
  var all = 0.0;
  for (var j = 0u; j < LANES; j++) { all += exp(lane_stats[j].x - highest) * lane_stats[j].y; }
  for (var i = lane; i < 2u * HEAD_DIM8; i += LANES) {
    var four = vec4<f32>(0.0);
    for (var j = 0u; j < LANES; j++) {
      four += exp(lane_stats[j].x - highest) * sums[i * LANES + j];
    }
    write_output(0u, index, i, four, all);
  }
}
