// Output of a language model's head: row-major logits, and for every CHUNK neighbours of a token
// the rank of their largest, so that sample.wgsl finds the largest of all without reading all of
// them. Only outputs below `candidates` count. With HAS_PENALTIES a logit is lowered first by how
// often its token has occurred: see `Penalties` in sampling.py.
//
// Provides: HAS_BIAS, bias, result, maxima_and_counts, params, store_one, store
// Needs:    nothing

//!include "rank.wgsl"
//!include "maxima_and_counts.wgsl"

override HAS_BIAS: bool = false;

struct Params {
  tokens: u32, out_features: u32, in_features8: u32, // in_features / 8
  first_out_feature: u32, total_out_features: u32, // as in store_plain.wgsl
  norm_features: u32, epsilon: f32, // for input_plain.wgsl
  candidates: u32, maxima_and_counts_width: u32,
  repetition: f32, presence: f32, frequency: f32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
// [tokens, maxima_and_counts_width]
@group(0) @binding(5) var<storage, read_write> maxima_and_counts: array<atomic<u32>>;
@group(0) @binding(7) var<uniform> params: Params;

fn penalised(value: f32, count: u32) -> f32 {
  if (count == 0u) { return value; }
  if ((count & (EXCLUDED | BANNED)) != 0u) { return LOWEST; }
  if ((count & FORCED) != 0u) { return 0.0; } // also where it was LOWEST, as in transformers
  if (value == LOWEST) { return value; }
  let repeated = select(value / params.repetition, value * params.repetition, value < 0.0);
  let times = f32(count & ~OF_PROMPT);
  return repeated - params.frequency * times - params.presence * min(times, 1.0);
}

// Writes a logit and returns its rank; 0 if it is not a candidate.
fn write_one(m: u32, n: u32, sum: f32) -> u32 {
  let feature = params.first_out_feature + n;
  var value = sum;
  if (HAS_BIAS) { value += bias[feature]; }
  var place = 0u;
  if (feature < params.candidates) {
    if (HAS_PENALTIES) {
      let count = m * params.maxima_and_counts_width + count_at(feature, params.candidates);
      value = penalised(value, atomicLoad(&maxima_and_counts[count]));
    }
    place = rank(value);
  }
  result[m * params.total_out_features + feature] = value;
  return place;
}

fn note_maximum(m: u32, n: u32, place: u32) {
  let chunk = (params.first_out_feature + n) / CHUNK;
  atomicMax(&maxima_and_counts[m * params.maxima_and_counts_width + chunk], place);
}

fn store_one(m: u32, n: u32, sum: f32) {
  let place = write_one(m, n, sum);
  if (place != 0u) { note_maximum(m, n, place); }
}

// Two neighbouring outputs, the first of them even; the second may be past the end. One atomic for
// both, unless the matrix is a part that begins at an odd one, which the last of a chunk may be.
fn store(m: u32, n: u32, sum: vec2<f32>) {
  var place = write_one(m, n, sum.x);
  if (n + 1u < params.out_features) {
    let second = write_one(m, n + 1u, sum.y);
    if ((params.first_out_feature + n + 1u) % CHUNK == 0u) {
      if (second != 0u) { note_maximum(m, n + 1u, second); }
    } else {
      place = max(place, second);
    }
  }
  if (place != 0u) { note_maximum(m, n, place); }
}
