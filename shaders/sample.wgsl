// The next token of each row: greedy, or a draw after temperature, top-k and top-p; then the row's
// state moves on by one position. One workgroup a row.
//
// Formula:  greedy: the first index of the largest logit. Else w[i] = round(2^30 * p[i]) with
//           p = softmax(logits / temperature). Tokens are ranked by logit, ties by index; a token
//           is kept while fewer than top_k rank before it, and while the mass (sum of w) ranked
//           before it is <= top_p * 2^30 (Holtzman et al. 2020; top-k first, not renormalised, as
//           KerasHub). The token drawn is the first, in index order, at which the running mass of
//           kept tokens exceeds random * mass. Masses are integers, so no order of summation
//           matters. The random word is pcg4d(seed, stream, position): nothing to store or restore.
// Bindings: logits [rows, stride] · tally [rows, tally_width] (tally.wgsl): ranks of the largest
//           logits, left behind as 0, and counts of tokens · options (below) · plan [rows]: total length at which a row is
//           full, and the seed and stream of its random numbers · token, position, finished [rows] ·
//           recent [rows, 16]: the last 16 tokens, each at its position % 16
//           finished: 0 no, 1 a stop token, 2 full, 3 logits with NaN or infinity
// Threads:  WORKGROUP (32 to 256) threads share workgroup (x) = one row
// Limits:   vocabulary < 2^30; rows <= 65,535

override WORKGROUP: u32 = 256u;
override LISTING: bool = true; // GPUs: what CPU adapters do not run costs them time, too
//!include "reduce.wgsl"
//!include "random.wgsl"
//!include "rank.wgsl"
//!include "tally.wgsl"

struct Params {
  vocabulary: u32, // tokens that may be chosen: the first of
  stride: u32, // the logits of a row
  tally_width: u32,
}
struct Options {
  temperature: f32,
  top_p: f32,
  top_k: u32, // 0: all
  greedy: u32,
  num_stops: u32,
  stops: array<u32>,
}
struct Plan {
  limit: u32,
  stream: u32,
  seed: vec2<u32>,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> options: Options;
@group(0) @binding(2) var<storage, read> plan: array<Plan>;
@group(0) @binding(3) var<storage, read_write> token: array<u32>;
@group(0) @binding(4) var<storage, read_write> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> finished: array<u32>;
@group(0) @binding(6) var<storage, read_write> recent: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;
@group(0) @binding(8) var<storage, read_write> tally: array<u32>;

const ONE: f32 = 1073741824.0; // 2^30: probability 1 as an integer mass

var<workgroup> verdict: u32; // what one thread decided for all
var<workgroup> best_rank: array<u32, WORKGROUP>;
var<workgroup> best_index: array<u32, WORKGROUP>;
var<workgroup> masses: array<u32, WORKGROUP>;
var<workgroup> bin_mass: array<atomic<u32>, 256>;
var<workgroup> bin_count: array<atomic<u32>, 256>;
const LISTED: u32 = 512u; // tokens that are compared all with all
var<workgroup> listed: atomic<u32>;
var<workgroup> list_chunk: array<u32, LISTED / 2u>;
var<workgroup> list_index: array<u32, LISTED>;
var<workgroup> list_rank: array<u32, LISTED>;
var<workgroup> list_mass: array<u32, LISTED>;
var<workgroup> cut: vec4<u32>; // found: bin, mass ranked before it, tokens in it, 1 if it is a cut

// What is kept: tokens whose rank (high, low) is at least this, both compared as unsigned words.
var<private> floor_high: u32 = 0u;
var<private> floor_low: u32 = 0u;
var<private> highest: f32; // the largest logit
var<private> mass_scale: f32;
var<private> first: u32; // this row's logits

fn rank_high(i: u32) -> u32 { return rank(logits[first + i]); }

fn kept(high: u32, i: u32) -> bool {
  return high > floor_high || (high == floor_high && ~i >= floor_low);
}

fn mass(i: u32) -> u32 {
  return u32(exp((logits[first + i] - highest) / options.temperature) * mass_scale + 0.5);
}

// The highest rank, and the first index that has it: into best_rank[0] and best_index[0].
fn first_of_highest(rank: u32, index: u32, thread: u32) {
  best_rank[thread] = rank;
  best_index[thread] = index;
  workgroupBarrier();
  for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
    if (thread < half) {
      let other = thread + half;
      let smaller = best_index[other] < best_index[thread];
      if (best_rank[other] > best_rank[thread]
          || (best_rank[other] == best_rank[thread] && smaller)) {
        best_rank[thread] = best_rank[other];
        best_index[thread] = best_index[other];
      }
    }
    workgroupBarrier();
  }
}

// Largest logit and its first index, into best_rank[0] and best_index[0]: of the chunks the first
// with the highest rank, then within it.
fn find_best(row: u32, thread: u32) {
  let chunks = chunks_of(params.vocabulary);
  var highest_rank = 0u;
  var index = chunks;
  for (var i = thread; i < chunks; i += WORKGROUP) {
    let found = tally[row * params.tally_width + i];
    if (found > highest_rank) { highest_rank = found; index = i; }
  }
  first_of_highest(highest_rank, index, thread);
  let begin = best_index[0] * CHUNK;
  highest_rank = 0u;
  index = params.vocabulary;
  workgroupBarrier(); // everybody has read
  for (var i = begin + thread; i < min(begin + CHUNK, params.vocabulary); i += WORKGROUP) {
    let found = rank_high(i);
    if (found > highest_rank) { highest_rank = found; index = i; }
  }
  first_of_highest(highest_rank, index, thread);
}

// Raise the floor so that a kept token has at most `budget` ranked before it: counted as tokens,
// or as mass. A radix search: eight bits of the rank at a time, ties going on to the index.
fn narrow(by_mass: bool, budget: u32, thread: u32) {
  var prefix_high = 0u;
  var prefix_low = 0u;
  var spent = 0u; // mass ranked before every token that shares the prefix
  for (var digit = 0u; digit < 8u; digit++) {
    let shift = 24u - 8u * (digit % 4u);
    for (var i = thread; i < 256u; i += WORKGROUP) {
      atomicStore(&bin_mass[i], 0u);
      atomicStore(&bin_count[i], 0u);
    }
    workgroupBarrier();
    for (var i = thread; i < params.vocabulary; i += WORKGROUP) {
      let high = rank_high(i);
      if (!kept(high, i)) { continue; }
      var bin = (high >> shift) & 255u;
      // Compare the digits found so far; a shift by 32 is not defined, hence the two steps.
      var same = ((high >> shift) >> 8u) == ((prefix_high >> shift) >> 8u);
      if (digit >= 4u) {
        bin = (~i >> shift) & 255u;
        same = high == prefix_high && ((~i >> shift) >> 8u) == ((prefix_low >> shift) >> 8u);
      }
      if (same) {
        atomicAdd(&bin_count[bin], 1u);
        atomicAdd(&bin_mass[bin], select(1u, mass(i), by_mass));
      }
    }
    workgroupBarrier();
    if (thread == 0u) {
      var before = spent;
      var found = vec4<u32>(0u);
      for (var b = 255; b >= 0; b--) {
        let here = atomicLoad(&bin_mass[b]);
        if (before + here > budget && found.w == 0u) {
          found = vec4<u32>(u32(b), before, atomicLoad(&bin_count[b]), 1u);
        }
        before += here;
      }
      cut = found;
    }
    let found = workgroupUniformLoad(&cut);
    if (found.w == 0u) { return; } // the budget is never exceeded: everything stays
    spent = found.y;
    if (digit < 4u) {
      prefix_high |= found.x << shift;
    } else {
      prefix_low |= found.x << shift;
    }
    if (found.z == 1u) { break; } // a single token: lower digits cannot divide it
  }
  // A prefix found early may lie below a floor found before: a floor only rises.
  if (prefix_high > floor_high || (prefix_high == floor_high && prefix_low > floor_low)) {
    floor_high = prefix_high;
    floor_low = prefix_low;
  }
}

// A kept token with probability proportional to its mass, into `verdict`.
fn draw(random: u32, thread: u32) {
  // Contiguous shares, so that the running mass is in index order.
  let share = (params.vocabulary + WORKGROUP - 1u) / WORKGROUP;
  let begin = thread * share;
  let end = min(begin + share, params.vocabulary);
  var own = 0u;
  for (var i = begin; i < end; i++) {
    if (kept(rank_high(i), i)) { own += mass(i); }
  }
  masses[thread] = own;
  workgroupBarrier();
  var before = 0u;
  var total = 0u;
  for (var i = 0u; i < WORKGROUP; i++) {
    if (i < thread) { before += masses[i]; }
    total += masses[i];
  }
  let goal = multiply_high(random, total);
  if (own > 0u && before <= goal && goal < before + own) {
    for (var i = begin; i < end; i++) {
      if (!kept(rank_high(i), i)) { continue; }
      before += mass(i);
      if (goal < before) {
        verdict = i;
        break;
      }
    }
  }
}

// Draw among the top_k by looking at few logits -> whether that was possible; every thread must call.
// The k-th highest rank of the chunks bounds that of the logits from below: k chunks have a logit
// that ranks as high. So only chunks that reach it are read, and what reaches it in them is listed;
// a list is short enough to compare all with all.
fn draw_listed(row: u32, random: u32, thread: u32) -> bool {
  let k = options.top_k;
  let chunks = chunks_of(params.vocabulary);
  if (k == 0u || k > min(chunks, LISTED / 2u)) { return false; }
  let line = row * params.tally_width;
  if (thread == 0u) { atomicStore(&listed, 0u); }
  for (var i = thread; i < chunks; i += WORKGROUP) {
    let own = tally[line + i];
    var before = 0u;
    for (var j = 0u; j < chunks; j++) {
      let other = tally[line + j];
      before += u32(other > own || (other == own && j < i));
    }
    if (before < k) { list_chunk[before] = i; }
    if (before == k - 1u) { cut = vec4<u32>(own); }
  }
  let bound = workgroupUniformLoad(&cut).x; // its barriers publish the k chunks, too
  for (var n = thread; n < k * CHUNK; n += WORKGROUP) {
    let i = list_chunk[n / CHUNK] * CHUNK + n % CHUNK;
    if (i >= params.vocabulary || rank_high(i) < bound) { continue; }
    let place = atomicAdd(&listed, 1u);
    if (place < LISTED) { list_index[place] = i; }
  }
  workgroupBarrier();
  if (thread == 0u) { cut = vec4<u32>(atomicLoad(&listed)); }
  let count = workgroupUniformLoad(&cut).x;
  if (count > LISTED) { return false; }

  for (var n = thread; n < count; n += WORKGROUP) {
    list_rank[n] = rank_high(list_index[n]);
    list_mass[n] = mass(list_index[n]);
  }
  workgroupBarrier();
  var own_mass: array<u32, LISTED / 32u>; // of every WORKGROUP-th: there are 32 threads at least
  for (var n = thread; n < count; n += WORKGROUP) {
    var order = 0u;
    var before = 0u;
    for (var m = 0u; m < count; m++) {
      if (list_rank[m] > list_rank[n]
          || (list_rank[m] == list_rank[n] && list_index[m] < list_index[n])) {
        order += 1u;
        before += list_mass[m];
      }
    }
    let kept = order < k && (options.top_p >= 1.0 || before <= u32(options.top_p * ONE));
    own_mass[n / WORKGROUP] = select(0u, list_mass[n], kept);
  }
  workgroupBarrier(); // everybody has read
  for (var n = thread; n < count; n += WORKGROUP) { list_mass[n] = own_mass[n / WORKGROUP]; }
  workgroupBarrier();
  var total = 0u;
  for (var m = 0u; m < count; m++) { total += list_mass[m]; }
  let goal = multiply_high(random, total);
  for (var n = thread; n < count; n += WORKGROUP) {
    var before = 0u;
    for (var m = 0u; m < count; m++) {
      before += select(0u, list_mass[m], list_index[m] < list_index[n]);
    }
    if (before <= goal && goal < before + list_mass[n]) { verdict = list_index[n]; }
  }
  return true;
}

// A draw, into `verdict`, which holds the likeliest token.
fn choose(row: u32, thread: u32) {
  var sum = 0.0;
  for (var i = thread; i < params.vocabulary; i += WORKGROUP) {
    sum += exp((logits[first + i] - highest) / options.temperature);
  }
  mass_scale = ONE / workgroup_sum(sum, thread);
  let random = pcg4d(vec4<u32>(plan[row].seed, plan[row].stream, position[row])).x;
  if (LISTING) {
    if (draw_listed(row, random, thread)) { return; }
  }
  if (options.top_k != 0u) { narrow(false, options.top_k - 1u, thread); }
  if (options.top_p < 1.0) { narrow(true, u32(options.top_p * ONE), thread); }
  draw(random, thread);
}

// One thread: write the token and move the row on.
fn advance(row: u32, chosen: u32) {
  let place = position[row] + 1u;
  position[row] = place;
  token[row] = chosen;
  recent[row * 16u + place % 16u] = chosen;
  if (HAS_PENALTIES) {
    tally[row * params.tally_width + count_at(chosen, params.vocabulary)] += 1u;
  }
  if (place + 1u >= plan[row].limit) { finished[row] = 2u; }
  for (var i = 0u; i < options.num_stops; i++) {
    if (options.stops[i] == chosen) { finished[row] = 1u; }
  }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let row = group.x;
  first = row * params.stride;
  if (thread == 0u) { verdict = finished[row]; }
  if (workgroupUniformLoad(&verdict) != 0u) { return; }

  find_best(row, thread);
  if (workgroupUniformLoad(&best_rank[0]) == NOT_FINITE) {
    if (thread == 0u) { finished[row] = 3u; }
    return;
  }
  highest = logits[first + best_index[0]];
  if (thread == 0u) { verdict = best_index[0]; }
  workgroupBarrier();
  if (options.greedy == 0u) { choose(row, thread); }
  workgroupBarrier();
  if (thread == 0u) { advance(row, verdict); }
  for (var i = thread; i < chunks_of(params.vocabulary); i += WORKGROUP) {
    tally[row * params.tally_width + i] = 0u; // for the next step
  }
}
