// Attention of each query over keys and values, one thread a query and head (no barriers).
//
// Formula:  as attention.wgsl, four positions at a time
// Bindings: as attention.wgsl
// Threads:  thread -> query * heads + head
// Limits:   WIDTH8 <= 16 (head size 128); positions are not split

//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"
//!include "attended_{output}.wgsl"
//!include "dot8.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = (group.y * groups.x + group.x) * 8u + thread;
  if (index >= params.queries) { return; }
  let line = line_of(index);
  let count = seen_by(index);

  var sum: array<mat2x4<f32>, 16>;
  var highest = -3.0e38;
  var total = 0.0;
  for (var base = 0u; base < count; base += 4u) {
    // Past the end the last position is read again, and weighs nothing.
    let p = min(vec4<u32>(base) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    var score = vec4<f32>(0.0);
    for (var i = 0u; i < WIDTH8; i++) {
      let at = (index * WIDTH8 + i) * 2u;
      let q = mat2x4<f32>(query[at], query[at + 1u]);
      score += vec4<f32>(dot8(q, key_at(line, p.x, i)), dot8(q, key_at(line, p.y, i)),
                         dot8(q, key_at(line, p.z, i)), dot8(q, key_at(line, p.w, i)));
    }
    score = vec4<f32>(scaled(line, p.x, score.x), scaled(line, p.y, score.y),
                      scaled(line, p.z, score.z), scaled(line, p.w, score.w));
    let larger = max(highest, max(max(score.x, score.y), max(score.z, score.w)));
    let shrink = exp(highest - larger);
    let there = vec4<u32>(base) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count);
    let share = select(vec4<f32>(0.0), exp(score - larger), there);
    total = total * shrink + dot(share, vec4<f32>(1.0));
    for (var i = 0u; i < WIDTH8; i++) {
      sum[i] = sum[i] * shrink
          + share.x * value_at(line, p.x, i) + share.y * value_at(line, p.y, i)
          + share.z * value_at(line, p.z, i) + share.w * value_at(line, p.w, i);
    }
    highest = larger;
  }
  for (var i = 0u; i < WIDTH8; i++) {
    put(0u, index, 2u * i, sum[i][0], total);
    put(0u, index, 2u * i + 1u, sum[i][1], total);
  }
}
