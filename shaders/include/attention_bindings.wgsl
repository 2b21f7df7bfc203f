// Parameters and bindings of the attention kernels, see attention.wgsl, and access to the cache.
//
// Provides: HAS_MASK, HEAD_DIM8, query, start, mask, params, visible_positions, batch_head_of,
//           key_at, value_at, masked_score
// Needs:    key8, value8

override HAS_MASK: bool = false;
override HEAD_DIM8: u32 = 8u; // head_dim / 8

struct Params {
  queries: u32, // batch * tokens_per_row * heads
  tokens_per_row: u32,
  heads: u32,
  capacity: u32,
  keys: u32,
  causal: u32,
  split_length: u32, // positions of one split
  scale: f32,
}

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read> mask: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

// Number of positions that the query `index` = (b * tokens_per_row + t) * heads + head sees.
fn visible_positions(index: u32) -> u32 {
  if (params.causal == 0u) { return params.keys; }
  let token = index / params.heads;
  let b = token / params.tokens_per_row;
  return min(params.keys, start[b] + token % params.tokens_per_row + 1u);
}

// b * heads + head of a query.
fn batch_head_of(index: u32) -> u32 {
  return index / params.heads / params.tokens_per_row * params.heads + index % params.heads;
}

// Group i of eight elements of a key, and of a value.
fn key_at(batch_head: u32, position: u32, i: u32) -> mat2x4<f32> {
  return key8((batch_head * HEAD_DIM8 + i) * params.capacity + position);
}
fn value_at(batch_head: u32, position: u32, i: u32) -> mat2x4<f32> {
  return value8((batch_head * params.capacity + position) * HEAD_DIM8 + i);
}

fn masked_score(batch_head: u32, position: u32, product: f32) -> f32 {
  let b = batch_head / params.heads;
  if (HAS_MASK && mask[b * params.capacity + position] == 0u) { return -1.0e9; }
  return product * params.scale;
}
