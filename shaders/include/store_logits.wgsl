// Where a head's outputs go: row-major logits, and for every 256 neighbours of a row the rank of their
// largest, so that whoever looks for the largest of all (sample.wgsl) does not read all of them.
// Columns as in store_plain.wgsl; only those below `candidates` count.

//!include "rank.wgsl"

override HAS_BIAS: bool = false;

struct Params {
  rows: u32, columns: u32, depth8: u32, first: u32, total: u32, width: u32, epsilon: f32,
  candidates: u32, chunks: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<storage, read_write> largest: array<atomic<u32>>; // [rows, chunks], 0 before
@group(0) @binding(7) var<uniform> params: Params;

fn store_one(row: u32, column: u32, sum: f32) {
  let c = params.first + column;
  var value = sum;
  if (HAS_BIAS) { value += bias[c]; }
  result[row * params.total + c] = value;
  if (c < params.candidates) { atomicMax(&largest[row * params.chunks + c / CHUNK], rank(value)); }
}

// Two neighbouring columns, the first of them even; the second may be past the end.
fn store(row: u32, column: u32, sum: vec2<f32>) {
  store_one(row, column, sum.x);
  if (column + 1u < params.columns) { store_one(row, column + 1u, sum.y); }
}
