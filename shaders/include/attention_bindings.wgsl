// What the attention kernels are called with; see attention.wgsl.

override HAS_MASK: bool = false;
override WIDTH8: u32 = 8u; // head size / 8

struct Params {
  queries: u32, // batch * tokens * heads
  tokens: u32,
  heads: u32,
  capacity: u32,
  keys: u32,
  causal: u32,
  share: u32, // positions of one split
  scale: f32,
}

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read> mask: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

// How many positions the query `index` = (b * tokens + t) * heads + head sees.
fn seen_by(index: u32) -> u32 {
  if (params.causal == 0u) { return params.keys; }
  let token = index / params.heads;
  return min(params.keys, start[token / params.tokens] + token % params.tokens + 1u);
}

// Batch row and head of a query, as a line of the cache.
fn line_of(index: u32) -> u32 {
  return index / params.heads / params.tokens * params.heads + index % params.heads;
}

// Group i of eight elements of a key, and of a value.
fn key_at(line: u32, position: u32, i: u32) -> mat2x4<f32> {
  return key8((line * WIDTH8 + i) * params.capacity + position);
}
fn value_at(line: u32, position: u32, i: u32) -> mat2x4<f32> {
  return value8((line * params.capacity + position) * WIDTH8 + i);
}

fn scaled(line: u32, position: u32, product: f32) -> f32 {
  if (HAS_MASK && mask[line / params.heads * params.capacity + position] == 0u) { return -1.0e9; }
  return product * params.scale;
}
