// Probabilities as integer masses, and the tokens that are kept.
//
// Provides: ONE, ALL_LOGITS, Share, share_of, floor_high, floor_low, highest, expected, deviations,
//           mass_scale, share_mass, share_is_known, log_mass, log_masses, deviation, rank_high,
//           kept, mass, masses_of, set_mass_scale, drop_below_reach
// Needs:    GATHERING, LOWEST, WORKGROUP, first, logits, note_depths, own, rank, workgroup_sum
//
// mass[i] = round(2^30 * p[i]) with p = softmax(logits / temperature): sums of integers are the
// same in every order. Only the sum of all p, and without a cut those of a thread's share, are sums
// of floats, so that with another number of threads a draw within 1e-6 of the border between two
// tokens may be the other one.

const ONE: f32 = 1073741824.0; // 2^30: the mass of probability 1
const ALL_LOGITS: f32 = 3.4e38; // the reach without min-p
const LOWEST_LOG: f32 = -1e30;  // finite, also where a logit divided by the temperature is not

// Tokens are kept whose rank (high, low) is at least this, both compared as unsigned words.
var<private> floor_high: u32 = 0u;
var<private> floor_low: u32 = 0u;
var<private> highest: f32; // the largest logit
var<private> mass_scale: f32;
// The mass of the kept tokens of this thread's share of all candidates, where it is known.
var<private> share_mass: u32;
var<private> share_is_known: bool;
// Locally typical sampling keeps tokens whose log-probability differs from the expected one by at
// most `deviations`; `expected` is relative to that of the largest logit.
var<private> expected: f32;
var<private> deviations: f32 = 3.4e38;

// The indices of a thread: begin, begin + step, ... below end.
struct Share { begin: u32, end: u32, step: u32 }

// Of `size` candidates from `begin` on. 16 teams of threads have a part each, of which the threads
// of a team read neighbours; with at most WORKGROUP candidates a thread has one.
fn share_of(begin: u32, size: u32, thread: u32) -> Share {
  let team = select(WORKGROUP / GATHERING, 1u, size <= WORKGROUP);
  let part = (size + WORKGROUP - 1u) / WORKGROUP * team;
  let start = begin + thread / team * part;
  return Share(start + thread % team, min(start + part, begin + size), team);
}

fn rank_high(i: u32) -> u32 { return rank(logits[first + i]); }

fn log_mass(i: u32) -> f32 {
  return max((logits[first + i] - highest) / own.temperature, LOWEST_LOG);
}

// Of four tokens, whose loads are in flight together; no mass from `end` on.
fn log_masses(i: vec4<u32>, end: u32) -> vec4<f32> {
  let at = first + min(i, vec4<u32>(end - 1u));
  let values = vec4<f32>(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
  let log_p = max((values - highest) / own.temperature, vec4<f32>(LOWEST_LOG));
  return select(vec4<f32>(LOWEST_LOG), log_p, i < vec4<u32>(end));
}

fn deviation(i: u32) -> f32 { return abs(log_mass(i) - expected); }

fn kept(high: u32, i: u32) -> bool {
  if (high < floor_high || (high == floor_high && ~i < floor_low)) { return false; }
  return own.typical_p >= 1.0 || deviation(i) <= deviations;
}

fn masses_of(log_p: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(exp(log_p) * mass_scale + 0.5);
}

fn mass(i: u32) -> u32 { return u32(exp(log_mass(i)) * mass_scale + 0.5); }

// Every thread must call, before the first mass. `noting`: also note_depths of all tokens.
fn set_mass_scale(noting: bool, thread: u32) {
  let share = share_of(0u, own.candidates, thread);
  var sum = 0.0;
  for (var i = share.begin; i < share.end; i += 4u * share.step) {
    let four = vec4<u32>(i) + share.step * vec4<u32>(0u, 1u, 2u, 3u);
    let log_p = log_masses(four, share.end);
    let p = exp(log_p);
    sum += (p.x + p.y) + (p.z + p.w);
    if (noting) { note_depths(log_p, p); }
  }
  mass_scale = ONE / workgroup_sum(sum, thread);
  share_mass = u32(sum * mass_scale + 0.5);
  share_is_known = true; // until tokens are cut
}

// Min-p: raise the floor to the logit of min_p times the largest probability.
fn drop_below_reach() {
  if (own.reach < ALL_LOGITS) { share_is_known = false; }
  let lowest_rank = rank(max(highest - own.reach, LOWEST));
  if (lowest_rank > floor_high) {
    floor_high = lowest_rank;
    floor_low = 0u;
  }
}
