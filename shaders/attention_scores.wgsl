// Attention scores before the softmax, for hooks: the fused kernels keep them in registers.
//
// Formula:  result[b, h, t, s] = query[b, t, h] . keys[b, h, s] * scale, -1e9 where HAS_MASK and
//           mask[b, s] is 0, and -3e38 (weight 0) where s > start[b] + t
// Bindings: query [batch, tokens_per_row, heads, head_dim] f32 · keys, values, start, mask as in
//           attention.wgsl · result [batch, heads, tokens_per_row, keys] f32
// Threads:  thread -> one score
// Limits:   none

//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"
//!include "dot8.wgsl"

@group(0) @binding(5) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.queries * params.keys) { return; }
  let s = i % params.keys;
  let t = i / params.keys % params.tokens_per_row;
  let batch_head = i / params.keys / params.tokens_per_row;
  let token = batch_head / params.heads * params.tokens_per_row + t;
  let index = token * params.heads + batch_head % params.heads;
  if (s >= visible_positions(index)) {
    result[i] = -3.0e38;
    return;
  }
  var product = 0.0;
  for (var k = 0u; k < HEAD_DIM8; k++) {
    let at = (index * HEAD_DIM8 + k) * 2u;
    product += dot8(mat2x4<f32>(query[at], query[at + 1u]), key_at(batch_head, s, k));
  }
  result[i] = masked_score(batch_head, s, product);
}
