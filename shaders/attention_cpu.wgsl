// Attention of each query over keys and values, for CPU adapters and many queries: one thread a
// query and head, no barriers.
//
// Formula:  as attention.wgsl, four positions at a time
// Bindings: as attention.wgsl
// Threads:  thread -> query * heads + head
// Limits:   HEAD_DIM8 <= 16 (head_dim 128); positions are not split

//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"
//!include "attention_output_whole.wgsl"
//!include "dot8.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = (group.y * groups.x + group.x) * 8u + thread;
  if (index >= params.queries) { return; }
  let batch_head = batch_head_of(index);
  let count = visible_positions(index);

  var sum: array<mat2x4<f32>, 16>;
  var highest = -3.0e38;
  var total = 0.0;
  for (var base = 0u; base < count; base += 4u) {
    // Past the end the last position is read again, with weight 0.
    let p = min(vec4<u32>(base) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    var score = vec4<f32>(0.0);
    for (var i = 0u; i < HEAD_DIM8; i++) {
      let at = (index * HEAD_DIM8 + i) * 2u;
      let q = mat2x4<f32>(query[at], query[at + 1u]);
      score += vec4<f32>(dot8(q, key_at(batch_head, p.x, i)), dot8(q, key_at(batch_head, p.y, i)),
                         dot8(q, key_at(batch_head, p.z, i)), dot8(q, key_at(batch_head, p.w, i)));
    }
    score = vec4<f32>(
        masked_score(batch_head, p.x, score.x), masked_score(batch_head, p.y, score.y),
        masked_score(batch_head, p.z, score.z), masked_score(batch_head, p.w, score.w));
    let larger = max(highest, max(max(score.x, score.y), max(score.z, score.w)));
    let shrink = exp(highest - larger);
    let valid = vec4<u32>(base) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count);
    let weight = select(vec4<f32>(0.0), exp(score - larger), valid);
    total = total * shrink + dot(weight, vec4<f32>(1.0));
    for (var i = 0u; i < HEAD_DIM8; i++) {
      sum[i] = sum[i] * shrink
          + weight.x * value_at(batch_head, p.x, i) + weight.y * value_at(batch_head, p.y, i)
          + weight.z * value_at(batch_head, p.z, i) + weight.w * value_at(batch_head, p.w, i);
    }
    highest = larger;
  }
  for (var i = 0u; i < HEAD_DIM8; i++) {
    write_output(0u, index, 2u * i, sum[i][0], total);
    write_output(0u, index, 2u * i + 1u, sum[i][1], total);
  }
}
