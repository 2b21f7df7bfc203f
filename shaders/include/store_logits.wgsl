// Output of a language model's head: row-major logits, and for every 256 neighbours of a row the
// rank of their largest, so that sample.wgsl finds the largest of all without reading all of them.
// Columns as in store_plain.wgsl; only those below `candidates` count. With HAS_PENALTIES a logit is
// lowered first by how often its token has occurred: see `Penalties` in sampling.py.

//!include "rank.wgsl"
//!include "maxima_and_counts.wgsl"

const LOWEST: f32 = -3.4e38; // finite, and 0 after exp() at every temperature

override HAS_BIAS: bool = false;

struct Params {
  rows: u32, columns: u32, depth8: u32, first: u32, total: u32, width: u32, epsilon: f32,
  candidates: u32, maxima_and_counts_width: u32,
  repetition: f32, presence: f32, frequency: f32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
// [rows, maxima_and_counts_width]
@group(0) @binding(5) var<storage, read_write> maxima_and_counts: array<atomic<u32>>;
@group(0) @binding(7) var<uniform> params: Params;

fn penalised(value: f32, count: u32) -> f32 {
  if (count == 0u || value == LOWEST) { return value; }
  if ((count & EXCLUDED) != 0u) { return LOWEST; }
  let repeated = select(value / params.repetition, value * params.repetition, value < 0.0);
  let times = f32(count & ~OF_PROMPT);
  return repeated - params.frequency * times - params.presence * min(times, 1.0);
}

fn store_one(row: u32, column: u32, sum: f32) {
  let c = params.first + column;
  var value = sum;
  if (HAS_BIAS) { value += bias[c]; }
  if (c < params.candidates) {
    let line = row * params.maxima_and_counts_width;
    if (HAS_PENALTIES) {
      let place = line + count_at(c, params.candidates);
      value = penalised(value, atomicLoad(&maxima_and_counts[place]));
    }
    atomicMax(&maxima_and_counts[line + c / CHUNK], rank(value));
  }
  result[row * params.total + c] = value;
}

// Two neighbouring columns, the first of them even; the second may be past the end.
fn store(row: u32, column: u32, sum: vec2<f32>) {
  store_one(row, column, sum.x);
  if (column + 1u < params.columns) { store_one(row, column + 1u, sum.y); }
}
