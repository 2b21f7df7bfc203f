// Values weighted by an attention pattern that a hook has replaced.
//
// Formula:  result[b, t, h] = sum over s <= start[b] + t of pattern[b, h, t, s] * values[b, h, s]
// Bindings: pattern [batch, heads, tokens_per_row, keys] f32 · query: not read · keys, values,
//           start, mask as in attention.wgsl · result [batch, tokens_per_row, heads, head_dim] f32
// Threads:  thread -> eight elements of one token and head
// Limits:   keys up to the device's limit of loop iterations (callers check)

//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"

@group(0) @binding(5) var<storage, read> pattern: array<f32>;
@group(0) @binding(6) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  let index = i / HEAD_DIM8;
  if (index >= params.queries) { return; }
  let k = i % HEAD_DIM8;
  let t = index / params.heads % params.tokens_per_row;
  let batch_head = batch_head_of(index);
  let row = (batch_head * params.tokens_per_row + t) * params.keys;
  let count = visible_positions(index);
  var sum = mat2x4<f32>();
  for (var s = 0u; s < count; s++) {
    sum += value_at(batch_head, s, k) * pattern[row + s];
  }
  result[2u * i] = sum[0];
  result[2u * i + 1u] = sum[1];
}
