// Where c_attn's outputs go: queries to `result`, keys and values straight into the cache.
// Column = part * width + head * head_dim + d, part 0 query, 1 key, 2 value; sizes are multiples of
// eight, so two neighbouring columns never part.
// Row = batch * tokens + t, at sequence position start[batch] + t; one past the cache is dropped.
// Cache of one layer: keys [batch, heads, head_dim / 8, capacity, 8], then values
// [batch, heads, capacity, head_dim].

//!include "cache_write_{cache}.wgsl"

struct Params {
  rows: u32, columns: u32, depth8: u32, first: u32, total: u32, width: u32, epsilon: f32,
  batch: u32, tokens: u32, heads: u32, head_dim: u32, capacity: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read_write> result: array<vec2<f32>>;
@group(0) @binding(7) var<uniform> params: Params;

// Two neighbouring columns, the first of them even.
fn store(row: u32, column: u32, sum: vec2<f32>) {
  let c = params.first + column;
  let value = sum + vec2<f32>(bias[c], bias[c + 1u]);
  let dim = params.head_dim;
  let width = params.heads * dim;
  if (c < width) {
    result[(row * width + c) / 2u] = value;
    return;
  }
  let b = row / params.tokens;
  let position = start[b] + row % params.tokens;
  if (position >= params.capacity) { return; }
  let head = b * params.heads + (c % width) / dim;
  let d = c % dim;
  var place = ((head * dim + d - d % 8u) * params.capacity + position * 8u) + d % 8u;
  if (c >= 2u * width) {
    place = (params.batch * params.heads + head) * params.capacity * dim + position * dim + d;
  }
  write_cache(place / 2u, value);
}
