// Advances each row by a token that was chosen elsewhere, as sample.wgsl does by its own choice:
// the end of a decode step whose sampler runs in Python.
//
// Formula:  position[r] += 1; token[r] = chosen[r]; recent[r, position[r] % 16] = chosen[r];
//           finished[r] = 2 where the row is full, 1 where chosen[r] is a stop token; only 3 where
//           a logit is not finite, 4 where all tokens are excluded. Finished rows stay as they
//           are. Maxima are reset to 0.
// Bindings: chosen [rows] · the rest as in sample.wgsl
// Threads:  thread -> one row
// Limits:   chosen[r] < candidates

//!include "rank.wgsl"
//!include "maxima_and_counts.wgsl"
//!include "advance_row.wgsl"

struct Params {
  rows: u32,
  maxima_and_counts_width: u32,
  options_width: u32,
}

@group(0) @binding(0) var<storage, read> chosen: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;
@group(0) @binding(8) var<storage, read_write> maxima_and_counts: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= params.rows || finished[row] != 0u) { return; }
  let first = row * params.maxima_and_counts_width;
  var highest = 0u;
  let chunks = chunks_of(options_of(row).candidates);
  for (var i = 0u; i < chunks; i++) {
    highest = max(highest, maxima_and_counts[first + i]);
    maxima_and_counts[first + i] = 0u;
  }
  if (highest == NOT_FINITE || highest <= rank(LOWEST)) {
    finished[row] = select(4u, 3u, highest == NOT_FINITE);
    return;
  }
  advance(row, chosen[row]);
}
