// The decoding state of a row, and how a chosen token advances it by one position.
//
// Provides: Options, RowParams, options, options_of, row_params, token, position, finished, recent,
//           advance
// Needs:    chunks_of, count_at, maxima_and_counts, params.maxima_and_counts_width,
//           params.options_width

struct Options {
  temperature: f32,
  top_p: f32,
  reach: f32,     // logits lower than the largest by more are dropped: -temperature log(min_p)
  typical_p: f32,
  top_k: u32, // 0: all
  greedy: u32,
  candidates: u32, // the first ids, which may be chosen
  num_stops: u32,
}
const STOPS: u32 = 8u; // words before the stop tokens
struct RowParams {
  limit: u32, // total length at which the row is full
  stream: u32, // with the seed: the key of its random numbers
  seed: vec2<u32>,
}

// Options and stop tokens, shared by all rows (params.options_width 0) or a group of words a row.
@group(0) @binding(1) var<storage, read> options: array<u32>;
@group(0) @binding(2) var<storage, read> row_params: array<RowParams>;
@group(0) @binding(3) var<storage, read_write> token: array<u32>;
@group(0) @binding(4) var<storage, read_write> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> finished: array<u32>;
@group(0) @binding(6) var<storage, read_write> recent: array<u32>;

fn options_of(row: u32) -> Options {
  let i = row * params.options_width;
  return Options(
    bitcast<f32>(options[i]), bitcast<f32>(options[i + 1u]), bitcast<f32>(options[i + 2u]),
    bitcast<f32>(options[i + 3u]), options[i + 4u], options[i + 5u], options[i + 6u],
    options[i + 7u],
  );
}

// One thread: write the token and advance the row.
fn advance(row: u32, chosen: u32) {
  let place = position[row] + 1u;
  position[row] = place;
  token[row] = chosen;
  recent[row * 16u + place % 16u] = chosen;
  let candidates = options_of(row).candidates;
  if (params.maxima_and_counts_width > chunks_of(candidates)) { // has counts
    let counts = row * params.maxima_and_counts_width;
    maxima_and_counts[counts + count_at(chosen, candidates)] += 1u;
  }
  if (place + 1u >= row_params[row].limit) { finished[row] = 2u; }
  let stops = row * params.options_width + STOPS;
  for (var i = 0u; i < options[stops - 1u]; i++) {
    if (options[stops + i] == chosen) { finished[row] = 1u; }
  }
}
