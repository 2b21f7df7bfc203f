// Keys and values that hooks may have replaced, written to a layer of the KV cache.
//
// Formula:  cache[part, b, h, start[b] + t] = x[part, b, t, h], part 0 keys and 1 values; one past
//           the cache is dropped
// Bindings: x [2, batch, tokens_per_row, heads, head_dim] f32 · start [batch] u32 · cache as in
//           store_qkv.wgsl
// Threads:  thread -> two neighbouring elements
// Limits:   none

//!include "cache_write_{cache}.wgsl"

struct Params {
  count: u32, // pairs of x
  batch: u32, tokens_per_row: u32, heads: u32, head_dim: u32, capacity: u32,
  rows: u32, // of the cache
}

@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> start: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  let dim = params.head_dim;
  let d = 2u * i % dim;
  let head = 2u * i / dim % params.heads;
  let token = 2u * i / dim / params.heads % (params.batch * params.tokens_per_row);
  let b = token / params.tokens_per_row;
  let position = start[b] + token % params.tokens_per_row;
  if (position >= params.capacity) { return; }
  let batch_head = b * params.heads + head;
  var place = (batch_head * dim + d - d % 8u) * params.capacity + position * 8u + d % 8u;
  if (2u * i >= params.count) {
    let heads_before = params.rows * params.heads + batch_head;
    place = (heads_before * params.capacity + position) * dim + d;
  }
  write_cache(place / 2u, x[i]);
}
