// Attention of each query over keys and values, one thread a query and head (no barriers).
//
// Formula:  as attention.wgsl
// Bindings: as attention.wgsl
// Threads:  thread -> query * heads + head
// Limits:   width4 <= 32 (head size 128)

//!include "attention_bindings.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = (group.y * groups.x + group.x) * 8u + thread;
  if (index >= params.queries) { return; }
  let width4 = params.width4;
  let head = index % params.heads;
  let b = index / params.heads / params.tokens;
  let t = (index / params.heads) % params.tokens;
  let line = (b * params.heads + head) * params.capacity;
  var count = params.keys;
  if (params.causal != 0u) { count = min(count, start[b] + t + 1u); }

  var sum: array<vec4<f32>, 32>;
  var highest = -3.0e38;
  var total = 0.0;
  for (var position = 0u; position < count; position++) {
    let at = (line + position) * width4;
    var score = 0.0;
    for (var i = 0u; i < width4; i++) { score += dot(query[index * width4 + i], keys[at + i]); }
    score *= params.scale;
    if (HAS_MASK) { score = select(-1.0e9, score, mask[b * params.capacity + position] != 0u); }
    let larger = max(highest, score);
    let shrink = exp(highest - larger);
    let share = exp(score - larger);
    total = total * shrink + share;
    for (var i = 0u; i < width4; i++) { sum[i] = sum[i] * shrink + share * values[at + i]; }
    highest = larger;
  }
  for (var i = 0u; i < width4; i++) { result[index * width4 + i] = sum[i] / total; }
}
