// Probabilities as integer masses, and the tokens that top-k and top-p keep.
//
// Provides: ONE, floor_high, floor_low, highest, rank_high, kept, mass, set_mass_scale
// Needs:    WORKGROUP, first, logits, options, rank, workgroup_sum, params.candidates
//
// mass[i] = round(2^30 * p[i]) with p = softmax(logits / temperature): sums of integers are the
// same in every order, so every number of threads draws the same token.

const ONE: f32 = 1073741824.0; // 2^30: the mass of probability 1

// Tokens are kept whose rank (high, low) is at least this, both compared as unsigned words.
var<private> floor_high: u32 = 0u;
var<private> floor_low: u32 = 0u;
var<private> highest: f32; // the largest logit
var<private> mass_scale: f32;

fn rank_high(i: u32) -> u32 { return rank(logits[first + i]); }

fn kept(high: u32, i: u32) -> bool {
  return high > floor_high || (high == floor_high && ~i >= floor_low);
}

fn mass(i: u32) -> u32 {
  return u32(exp((logits[first + i] - highest) / options.temperature) * mass_scale + 0.5);
}

// Every thread must call, before the first mass.
fn set_mass_scale(thread: u32) {
  var sum = 0.0;
  for (var i = thread; i < params.candidates; i += WORKGROUP) {
    sum += exp((logits[first + i] - highest) / options.temperature);
  }
  mass_scale = ONE / workgroup_sum(sum, thread);
}
