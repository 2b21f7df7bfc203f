// Output of GPT-2's c_attn: queries to `result`, keys and values into the cache.
//
// Provides: bias, start, result, params, store
// Needs:    nothing
//
// Output = part * width + head * head_dim + d, with width = heads * head_dim and part 0 query, 1
// key, 2 value; sizes are multiples of eight, so two neighbouring outputs are in the same part.
// Token = batch * tokens_per_row + t, at position start[batch] + t of its sequence; one past the
// cache is dropped. Cache of one layer: keys [batch, heads, head_dim / 8, capacity, 8], then values
// [batch, heads, capacity, head_dim].

//!include "cache_write_{cache}.wgsl"

struct Params {
  tokens: u32, out_features: u32, in_features8: u32, // in_features / 8
  first_out_feature: u32, total_out_features: u32, // as in store_plain.wgsl
  norm_features: u32, epsilon: f32, // for input_plain.wgsl
  batch: u32, tokens_per_row: u32, heads: u32, head_dim: u32, capacity: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read_write> result: array<vec2<f32>>;
@group(0) @binding(7) var<uniform> params: Params;

// Two neighbouring outputs, the first of them even.
fn store(m: u32, n: u32, sum: vec2<f32>) {
  let feature = params.first_out_feature + n;
  let value = sum + vec2<f32>(bias[feature], bias[feature + 1u]);
  let dim = params.head_dim;
  let width = params.heads * dim;
  if (feature < width) {
    result[(m * width + feature) / 2u] = value;
    return;
  }
  let b = m / params.tokens_per_row;
  let position = start[b] + m % params.tokens_per_row;
  if (position >= params.capacity) { return; }
  let head = b * params.heads + (feature % width) / dim;
  let d = feature % dim;
  var place = ((head * dim + d - d % 8u) * params.capacity + position * 8u) + d % 8u;
  if (feature >= 2u * width) {
    place = (params.batch * params.heads + head) * params.capacity * dim + position * dim + d;
  }
  write_cache(place / 2u, value);
}
