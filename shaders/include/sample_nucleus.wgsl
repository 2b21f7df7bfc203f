// The cut by top-p without a search over all candidates for each digit. The depth of a token is the
// distance of its log-probability from the largest. The pass that sums all probabilities
// (set_mass_scale) also sums those above each of 16 depths, in registers. A cubic curve through
// four of these sums predicts the depth of the cut; the tokens around it are listed and compared
// with each other. If the cut is not among them, the step that has it is divided into 16, twice.
// Equal to narrow(BY_MASS, ...) of sample_narrow.wgsl, which serves where this finds no cut, as
// among many equal logits.
//
// Provides: note_depths, find_nucleus, nucleus_bound, nucleus_is_short, narrow_nucleus
// Needs:    GATHERING, LISTED, LOWEST, WORKGROUP, begin_list, bin_count, bin_mass, cut_list,
//           end_list, floor_high, floor_low, highest, kept, list_index, list_mass, list_rank,
//           list_token, log_masses, mass_scale, masses_of, own, rank, running_sum, running_total,
//           share_is_known, share_mass, share_of

const STEPS: u32 = 16u; // between the depths of the sums, each of 1.0 in the first pass
const ATTEMPTS: u32 = 3u; // to find the cut
const LISTED_AROUND: f32 = 256.0; // tokens to list around the predicted cut

struct Prediction {
  top: f32,    // the cut is probably between these depths
  bottom: f32,
  least: f32,  // tokens above the step that has the cut, and in it, at least; up to rounding
  step: f32,   // the first depth of that step; STEPS if the cut is below the first 16 steps
  above: f32,  // mass above it
}

var<workgroup> prediction: Prediction;
var<private> first_depth: f32 = 0.0;
var<private> depth_step: f32 = 1.0;
// Of this thread's tokens the sums of exp(log_p) above the ends of steps 1 to 16.
var<private> above_4: vec4<f32>;
var<private> above_8: vec4<f32>;
var<private> above_12: vec4<f32>;
var<private> above_16: vec4<f32>;
var<private> mass_above: u32; // of all tokens above the listed ones

fn note_depth(log_p: f32, p: f32) {
  let steps = vec4<f32>((-log_p - first_depth) / depth_step);
  let none = vec4<f32>(0.0);
  above_4 += select(none, vec4<f32>(p), steps < vec4<f32>(1.0, 2.0, 3.0, 4.0));
  above_8 += select(none, vec4<f32>(p), steps < vec4<f32>(5.0, 6.0, 7.0, 8.0));
  above_12 += select(none, vec4<f32>(p), steps < vec4<f32>(9.0, 10.0, 11.0, 12.0));
  above_16 += select(none, vec4<f32>(p), steps < vec4<f32>(13.0, 14.0, 15.0, 16.0));
}

fn note_depths(log_p: vec4<f32>, p: vec4<f32>) {
  note_depth(log_p.x, p.x);
  note_depth(log_p.y, p.y);
  note_depth(log_p.z, p.z);
  note_depth(log_p.w, p.w);
}

fn add_sums(i: u32, sums: vec4<f32>) {
  let masses = vec4<u32>(sums * mass_scale);
  atomicAdd(&bin_mass[i], masses.x);
  atomicAdd(&bin_mass[i + 1u], masses.y);
  atomicAdd(&bin_mass[i + 2u], masses.z);
  atomicAdd(&bin_mass[i + 3u], masses.w);
}

// Where `budget`, a mass, is exceeded, into `prediction`. Every thread must call, after
// set_mass_scale.
fn find_nucleus(budget: u32, thread: u32) {
  if (thread < STEPS) { atomicStore(&bin_mass[thread], 0u); }
  workgroupBarrier();
  add_sums(0u, above_4);
  add_sums(4u, above_8);
  add_sums(8u, above_12);
  add_sums(12u, above_16);
  workgroupBarrier();
  if (thread == 0u) { predict_cut(f32(budget)); }
  workgroupBarrier();
}

// The mass above the end of step i, from 0 on; of the last one for those after it.
fn sum_above(i: u32) -> f32 { return f32(atomicLoad(&bin_mass[min(i, STEPS - 1u)])); }

// Tokens with the probability at `depth` that together have `mass`.
fn tokens_of(mass: f32, depth: f32) -> f32 { return mass / (exp(-depth) * mass_scale); }

// From the sums above the ends of the steps, in bin_mass. One thread calls.
fn predict_cut(budget: f32) {
  // The first step whose end has more than the budget above it, or the one after all; mass above
  // the starts of the step before (of the first step: 0), of it and of the next one, and above the
  // end of that.
  var sums = vec4<f32>(prediction.above, prediction.above, sum_above(0u), sum_above(1u));
  var depth = first_depth;
  var least = tokens_of(sums.z, depth);
  for (var i = 0u; i < STEPS && sums.z <= budget; i++) {
    sums = vec4<f32>(sums.yzw, sum_above(i + 2u));
    depth += depth_step;
    least += tokens_of(sums.z - sums.y, depth);
  }
  // Newton's form of the curve through the sums, from t = -1 to 2, and its slope at the cut.
  let d1 = sums.y - sums.x;
  let d2 = sums.z - sums.y - d1;
  let d3 = sums.w - 3.0 * (sums.z - sums.y) - sums.x;
  var t = 0.5;
  for (var half = 0.25; half > 1e-5; half *= 0.5) {
    let sum = sums.x + (t + 1.0) * (d1 + t * (0.5 * d2 + (t - 1.0) / 6.0 * d3));
    t += select(half, -half, sum > budget);
  }
  let in_step = sums.z - sums.y;
  let slope = max(d1 + (t + 0.5) * d2 + (0.5 * t * t - 1.0 / 6.0) * d3, 0.1 * in_step);
  prediction = Prediction(depth, depth + depth_step, least, depth, sums.y);
  if (tokens_of(in_step, depth + 0.5 * depth_step) > LISTED_AROUND) {
    let cut = depth + t * depth_step;
    let reach = 0.5 * LISTED_AROUND / tokens_of(slope / depth_step, cut);
    prediction.top = cut - reach;
    prediction.bottom = cut + reach;
  }
}

// A rank that all tokens of the nucleus probably reach.
fn nucleus_bound() -> u32 {
  return rank(max(highest - prediction.bottom * own.temperature, LOWEST));
}

fn nucleus_is_short() -> bool { return prediction.least <= f32(LISTED); }

// Sum above the 16 parts of the step at `depth`, and find the cut there. Every thread must call.
fn divide_step(depth: f32, budget: u32, thread: u32) {
  first_depth = depth;
  depth_step /= f32(STEPS);
  above_4 = vec4<f32>(0.0);
  above_8 = vec4<f32>(0.0);
  above_12 = vec4<f32>(0.0);
  above_16 = vec4<f32>(0.0);
  let share = share_of(0u, own.candidates, thread);
  for (var i = share.begin; i < share.end; i += 4u * share.step) {
    let log_p = log_masses(vec4<u32>(i) + share.step * vec4<u32>(0u, 1u, 2u, 3u), share.end);
    note_depths(log_p, exp(log_p));
  }
  find_nucleus(budget, thread);
}

// The tokens between the depths at.top and at.bottom into the list; the mass above them into
// share_mass and, of all threads, mass_above -> how many they are. Every thread must call.
fn list_depths(at: Prediction, thread: u32) -> u32 {
  begin_list(thread);
  let share = share_of(0u, own.candidates, thread);
  share_mass = 0u;
  for (var i = share.begin; i < share.end; i += 4u * share.step) {
    let log_p = log_masses(vec4<u32>(i) + share.step * vec4<u32>(0u, 1u, 2u, 3u), share.end);
    let is_above = -log_p < vec4<f32>(at.top);
    let masses = select(vec4<u32>(0u), masses_of(log_p), is_above);
    share_mass += (masses.x + masses.y) + (masses.z + masses.w);
    let flags = select(vec4<u32>(1u, 2u, 4u, 8u), vec4<u32>(0u),
                       is_above | (-log_p > vec4<f32>(at.bottom)));
    for (var left = (flags.x | flags.y) | (flags.z | flags.w); left != 0u; left &= left - 1u) {
      list_token(i + share.step * countTrailingZeros(left));
    }
  }
  let count = end_list(thread);
  _ = running_sum(share_mass, thread);
  mass_above = running_total();
  return count;
}

// Raise the floor so that a kept token has at most `budget`, a mass, ranked before it -> false if
// the cut was not found. Every thread must call.
fn narrow_nucleus(budget: u32, thread: u32) -> bool {
  let floor = vec2<u32>(floor_high, floor_low);
  share_is_known = false;
  for (var attempt = 1u; ; attempt++) {
    let at = workgroupUniformLoad(&prediction);
    if (at.step >= f32(STEPS)) { break; }
    let count = list_depths(at, thread);
    let range = vec2<f32>(at.top, at.bottom);
    if (count <= LISTED && cut_list(true, budget, mass_above, range, count, thread)) {
      share_is_known = any(floor != vec2<u32>(floor_high, floor_low));
      share_list(count, thread);
      return true;
    }
    if (attempt == ATTEMPTS) { break; }
    divide_step(at.step, budget, thread);
  }
  return false;
}

// Add what is kept of the list to share_mass: it belongs to the first threads of the teams. Every
// thread must call.
fn share_list(count: u32, thread: u32) {
  for (var i = thread; i < GATHERING; i += WORKGROUP) { atomicStore(&bin_count[i], 0u); }
  workgroupBarrier();
  let part = share_of(0u, own.candidates, 0u).end;
  for (var n = thread; n < count; n += WORKGROUP) {
    if (kept(list_rank[n], list_index[n])) {
      atomicAdd(&bin_count[min(list_index[n] / part, GATHERING - 1u)], list_mass[n]);
    }
  }
  workgroupBarrier();
  let team = WORKGROUP / GATHERING;
  if (thread % team == 0u) { share_mass += atomicLoad(&bin_count[thread / team]); }
  workgroupBarrier(); // bin_count has been read
}
