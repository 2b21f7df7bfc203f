// Where c_attn's outputs go: queries to `result`, keys and values straight into the cache.
// Column = part * width + head * head_dim + d, part 0 query, 1 key, 2 value.
// Row = batch * tokens + t, at sequence position start[batch] + t.
// Cache of one layer: [2, batch, heads, capacity, head_dim]; a position past it is dropped.

struct Params {
  rows: u32, columns: u32, depth8: u32, first: u32,
  batch: u32, tokens: u32, heads: u32, head_dim: u32, capacity: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<storage, read_write> cache: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

fn store(row: u32, column: u32, sum: f32) {
  let c = params.first + column;
  let value = sum + bias[c];
  let width = params.heads * params.head_dim;
  if (c < width) {
    result[row * width + c] = value;
    return;
  }
  let part = c / width - 1u;
  let head = (c % width) / params.head_dim;
  let d = c % params.head_dim;
  let b = row / params.tokens;
  let position = start[b] + row % params.tokens;
  if (position < params.capacity) {
    let line = ((part * params.batch + b) * params.heads + head) * params.capacity + position;
    cache[line * params.head_dim + d] = value;
  }
}
