// Probabilities as integer masses, and the tokens that are kept.
//
// Provides: ONE, floor_high, floor_low, highest, expected, deviations, log_mass, deviation,
//           rank_high, kept, mass, set_mass_scale, drop_below_reach
// Needs:    WORKGROUP, first, logits, own, rank, workgroup_sum, params.candidates
//
// mass[i] = round(2^30 * p[i]) with p = softmax(logits / temperature): sums of integers are the
// same in every order, so every number of threads draws the same token.

const ONE: f32 = 1073741824.0; // 2^30: the mass of probability 1

// Tokens are kept whose rank (high, low) is at least this, both compared as unsigned words.
var<private> floor_high: u32 = 0u;
var<private> floor_low: u32 = 0u;
var<private> highest: f32; // the largest logit
var<private> mass_scale: f32;
// Locally typical sampling keeps tokens whose log-probability differs from the expected one by at
// most `deviations`; `expected` is relative to that of the largest logit.
var<private> expected: f32;
var<private> deviations: f32 = 3.4e38;

fn rank_high(i: u32) -> u32 { return rank(logits[first + i]); }

fn log_mass(i: u32) -> f32 { return (logits[first + i] - highest) / own.temperature; }

fn deviation(i: u32) -> f32 { return abs(log_mass(i) - expected); }

fn kept(high: u32, i: u32) -> bool {
  if (high < floor_high || (high == floor_high && ~i < floor_low)) { return false; }
  return own.typical_p >= 1.0 || deviation(i) <= deviations;
}

fn mass(i: u32) -> u32 {
  return u32(exp(log_mass(i)) * mass_scale + 0.5);
}

// Every thread must call, before the first mass.
fn set_mass_scale(thread: u32) {
  var sum = 0.0;
  for (var i = thread; i < params.candidates; i += WORKGROUP) {
    sum += exp(log_mass(i));
  }
  mass_scale = ONE / workgroup_sum(sum, thread);
}

// Min-p: raise the floor to the logit of min_p times the largest probability.
fn drop_below_reach() {
  let lowest_rank = rank(max(highest - own.reach, -3.4e38));
  if (lowest_rank > floor_high) {
    floor_high = lowest_rank;
    floor_low = 0u;
  }
}
