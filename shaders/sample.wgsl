// The next token of each row, greedy or drawn with temperature, top-k, top-p, min-p and
// typical_p, in this order; then the row's state advances by one position. One workgroup a row.
//
// Formula:  greedy: the first index of the largest logit. Else a draw from p = softmax(logits /
//           temperature). Tokens are ranked by logit, ties by index; a token is kept while fewer
//           than top_k rank before it and while the probability ranked before it is <= top_p
//           (Holtzman et al. 2020; top-k first, not renormalised, as in KerasHub) and while its p
//           is at least min_p times the largest (Nguyen et al. 2024); typical_p: see
//           sample_typical.wgsl. Probabilities are summed as integers, see sample_mass.wgsl. The
//           random word is pcg4d(seed, stream, position): no state to store or restore.
// Bindings: logits [rows, stride] · maxima_and_counts [rows, maxima_and_counts_width]
//           (maxima_and_counts.wgsl; the maxima are reset to 0) · options, row_params: see below ·
//           token, position, finished [rows] · recent [rows, 16]: the last 16 tokens, each at its
//           position % 16; finished: 0 no, 1 a stop token, 2 full, 3 logits with NaN or infinity,
//           4 every token is excluded
// Threads:  WORKGROUP (32 to 256) threads share workgroup (x) = one row
// Limits:   candidates < 2^30; rows <= 65,535
//
// Its steps are includes: the largest logit (sample_best.wgsl), then for a draw either a list of
// few tokens (sample_listed.wgsl), or the cuts (sample_narrow.wgsl, sample_nucleus.wgsl,
// sample_typical.wgsl) and a draw from what they leave (sample_draw.wgsl). All logits are read once
// with a short list, or without cuts; two, four or six times for a nucleus of many tokens. A search
// (many equal logits, a large top_k, typical_p) reads them once for each digit, up to eight times.
// Words of all of them: the depth of a token is the distance of its log-probability from the
// largest, its mass its probability as an integer; the floor is the lowest rank that is kept.
//
// Params are only widths of rows, and the number of candidates is an option: where uniform values
// alone decide a condition, Mesa 22.3's llvmpipe inserts them as constants and compiles the kernel
// again for each dispatch.

override WORKGROUP: u32 = 256u;
//!include "reduce.wgsl"
//!include "running_sum.wgsl"
//!include "random.wgsl"
//!include "rank.wgsl"
//!include "maxima_and_counts.wgsl"
//!include "sample_best.wgsl"
//!include "sample_mass.wgsl"
//!include "sample_bins.wgsl"
//!include "sample_list.wgsl"
//!include "sample_narrow.wgsl"
//!include "sample_nucleus.wgsl"
//!include "sample_typical.wgsl"
//!include "sample_draw.wgsl"
//!include "sample_listed.wgsl"
//!include "advance_row.wgsl"

struct Params {
  stride: u32, // logits of a row
  maxima_and_counts_width: u32,
  options_width: u32,
}
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;
@group(0) @binding(8) var<storage, read_write> maxima_and_counts: array<u32>;

var<workgroup> already_finished: u32;
var<workgroup> sampled_token: u32;
var<workgroup> found: vec4<u32>; // what one thread found, for all to read
var<private> first: u32;         // index of this row's first logit
var<private> own: Options;       // of this row; where control flow must be uniform: options_of

// A draw, into `sampled_token`, which holds the token of the largest logit.
fn choose(row: u32, thread: u32) {
  let uniform_options = options_of(row);
  let budget = u32(uniform_options.top_p * ONE);
  let by_mass = uniform_options.top_p < 1.0;
  let by_depth = by_mass && !lists_top_k(uniform_options);
  set_mass_scale(by_depth, thread);
  if (by_depth) { find_nucleus(budget, thread); }
  let random = pcg4d(vec4<u32>(row_params[row].seed, row_params[row].stream, position[row])).x;
  drop_below_reach();
  if (draw_listed(row, random, thread)) { return; }
  let is_cut = by_depth && narrow_nucleus(budget, thread);
  for (var by = BY_COUNT; by <= BY_DEVIATION; by++) {
    var most = uniform_options.top_k - 1u;
    switch (by) {
      case BY_COUNT: { if (uniform_options.top_k == 0u) { continue; } }
      case BY_MASS: {
        if (!by_mass || is_cut) { continue; }
        most = budget;
      }
      default: {
        if (uniform_options.typical_p >= 1.0) { continue; }
        most = typical_budget(thread);
      }
    }
    narrow(by, most, thread);
  }
  draw(random, uniform_options.candidates, thread);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let row = group.x;
  first = row * params.stride;
  own = options_of(row);
  if (thread == 0u) { already_finished = finished[row]; }
  if (workgroupUniformLoad(&already_finished) != 0u) { return; }

  find_best(row, thread);
  let best = workgroupUniformLoad(&best_rank[0]);
  if (best == NOT_FINITE || best <= rank(LOWEST)) {
    if (thread == 0u) { finished[row] = select(4u, 3u, best == NOT_FINITE); }
    return;
  }
  highest = logits[first + best_index[0]];
  if (thread == 0u) { sampled_token = best_index[0]; }
  workgroupBarrier();
  if (options_of(row).greedy == 0u) { choose(row, thread); }
  workgroupBarrier();
  if (thread == 0u) { advance(row, sampled_token); }
  for (var i = thread; i < chunks_of(own.candidates); i += WORKGROUP) {
    maxima_and_counts[row * params.maxima_and_counts_width + i] = 0u; // for the next step
  }
}
