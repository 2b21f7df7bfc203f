// The cut by top-p without a search over all candidates for each digit: the pass that sums the
// probabilities (set_mass_scale) also sums them by depth, the distance of a token's
// log-probability from the largest. They show at which depths the cut is; the few tokens there are
// listed and compared with each other, or where they are many, those of a 256th of these depths.
// Equal to narrow(true, ...) of sample_narrow.wgsl, which serves where they are too many still, as
// equal logits are.
//
// Provides: note_depths, clear_depths, find_nucleus, nucleus_bound, narrow_nucleus
// Needs:    GATHERING, LOWEST, WORKGROUP, begin_list, bin_count, bin_mass, end_list, floor_high,
//           floor_low, found, highest, kept, list_index, list_mass, list_rank, list_token,
//           listed_before, log_masses, mass_of, mass_scale, rank, running_sum, running_total,
//           share_is_known, share_mass, share_of, params.candidates
const DEPTHS: u32 = 256u;   // bins of DEPTH each; the last one has all tokens below, too
const DEPTH: f32 = 0.0625;
const NOTED: f32 = 32768.0; // of a bin: the sum of exp(its depth - that of a token), times this
const COMPARED: u32 = 256u; // most tokens to compare with each other
const MARGIN: u32 = 1u << 17u; // mass by which sums over bins may be off

var<workgroup> nucleus_first: u32; // the cut is at one of the depths from this
var<workgroup> nucleus_last: u32;  // to this
var<private> mass_above: u32;      // of the tokens above those collected

fn depth_of(log_p: f32) -> u32 { return u32(min(log_p * (-1.0 / DEPTH), f32(DEPTHS) - 1.0)); }

// exp(x) as a polynomial: exact to 1e-6, which MARGIN covers.
fn note_depth(log_p: f32) {
  let depth = depth_of(log_p);
  let x = log_p + DEPTH * f32(depth); // less than DEPTH below 0
  if (x < -1.0) { return; } // of the last bin: hardly any mass
  let part = 1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0)));
  atomicAdd(&bin_mass[depth], u32(part * NOTED + 0.5));
}

fn note_depths(log_p: vec4<f32>) {
  note_depth(log_p.x);
  note_depth(log_p.y);
  note_depth(log_p.z);
  note_depth(log_p.w);
}

// Every thread must call, before the depths are noted.
fn clear_depths(thread: u32) {
  for (var i = thread; i < DEPTHS; i += WORKGROUP) { atomicStore(&bin_mass[i], 0u); }
  if (thread == 0u) {
    nucleus_first = DEPTHS - 1u;
    nucleus_last = DEPTHS - 1u;
  }
  workgroupBarrier();
}

fn mass_at(depth: u32) -> u32 {
  let sum = f32(atomicLoad(&bin_mass[depth])) / NOTED;
  return u32(sum * exp(-DEPTH * f32(depth)) * mass_scale);
}

// The depths at which `budget`, a mass, is exceeded. Every thread must call, after set_mass_scale.
fn find_nucleus(budget: u32, thread: u32) {
  let share = DEPTHS / WORKGROUP;
  let own_first = thread * share;
  var own_mass = 0u;
  for (var i = 0u; i < share; i++) { own_mass += mass_at(own_first + i); }
  var before = running_sum(own_mass, thread) - own_mass;
  let low = budget - min(budget, MARGIN);
  let high = budget + MARGIN;
  for (var i = 0u; i < share; i++) {
    let after = before + mass_at(own_first + i);
    if (before <= low && low < after) { nucleus_first = own_first + i; } // in one thread
    if (before <= high && high < after) { nucleus_last = own_first + i; }
    before = after;
  }
  workgroupBarrier();
}

// A rank that the tokens of all depths up to nucleus_last reach, up to rounding.
fn nucleus_bound() -> u32 {
  if (nucleus_last == DEPTHS - 1u) { return 0u; }
  return rank(max(highest - DEPTH * f32(nucleus_last + 1u) * own.temperature, LOWEST));
}

// The tokens with log_p from -origin down to -origin - DEPTHS / scale: into the list, their masses
// into bin_mass by depth, that range divided by DEPTHS; the mass above them into share_mass and, of
// all threads, mass_above -> how many they are. Every thread must call.
fn collect_depths(origin: f32, scale: f32, thread: u32) -> u32 {
  for (var i = thread; i < DEPTHS; i += WORKGROUP) { atomicStore(&bin_mass[i], 0u); }
  begin_list(thread);
  let share = share_of(0u, params.candidates, thread);
  share_mass = 0u;
  for (var i = share.begin; i < share.end; i += 4u * share.step) {
    let four = vec4<u32>(i) + share.step * vec4<u32>(0u, 1u, 2u, 3u);
    let log_p = log_masses(four, share.end);
    let depths = (-log_p - origin) * scale;
    for (var j = 0u; j < 4u; j++) {
      if (depths[j] >= f32(DEPTHS)) { continue; }
      let own = mass_of(log_p[j]);
      if (depths[j] < 0.0) {
        share_mass += own;
      } else {
        atomicAdd(&bin_mass[u32(depths[j])], own);
        list_token(four[j]);
      }
    }
  }
  let count = end_list(thread);
  _ = running_sum(share_mass, thread);
  mass_above = running_total();
  return count;
}

// The depth of bin_mass at which `budget`, a mass without that above, is exceeded; DEPTHS if it is
// not. Every thread must call.
fn depth_exceeding(budget: u32, thread: u32) -> u32 {
  let share = DEPTHS / WORKGROUP;
  var own_mass = 0u;
  for (var i = thread * share; i < (thread + 1u) * share; i++) {
    own_mass += atomicLoad(&bin_mass[i]);
  }
  if (thread == 0u) { found = vec4<u32>(DEPTHS); }
  var before = running_sum(own_mass, thread) - own_mass;
  for (var i = thread * share; i < (thread + 1u) * share; i++) {
    let after = before + atomicLoad(&bin_mass[i]);
    if (before <= budget && budget < after) { found = vec4<u32>(i); } // in one thread
    before = after;
  }
  return workgroupUniformLoad(&found).x;
}

// Raise the floor so that a kept token has at most `budget`, a mass, ranked before it -> false if
// the tokens to compare are too many, or the sums by depth were off. Every thread must call.
fn narrow_nucleus(budget: u32, thread: u32) -> bool {
  share_is_known = false;
  let top = workgroupUniformLoad(&nucleus_first);
  let bottom = workgroupUniformLoad(&nucleus_last);
  if (bottom == DEPTHS - 1u) { return false; }
  var origin = DEPTH * f32(top);
  var scale = f32(DEPTHS) / (DEPTH * f32(bottom - top + 1u));
  for (var round = 0u; round < 2u; round++) {
    let count = collect_depths(origin, scale, thread);
    if (count <= COMPARED) { return cut_list(budget, count, thread); }
    let depth = depth_exceeding(budget - min(budget, mass_above), thread);
    if (depth == DEPTHS) { return false; }
    origin += f32(depth) / scale;
    scale *= f32(DEPTHS);
  }
  return false;
}

// Raise the floor to the last token of the list with at most `budget` ranked before it -> false if
// there is none. Every thread must call.
fn cut_list(budget: u32, count: u32, thread: u32) -> bool {
  for (var i = thread; i < GATHERING; i += WORKGROUP) { atomicStore(&bin_count[i], 0u); }
  if (thread == 0u) { found = vec4<u32>(0u); }
  workgroupBarrier();
  for (var n = thread; n < count; n += WORKGROUP) {
    let before = mass_above + listed_before(n, count).y;
    if (before <= budget && budget < before + list_mass[n]) { // in one thread
      found = vec4<u32>(list_rank[n], ~list_index[n], 1u, 0u);
    }
  }
  let cut = workgroupUniformLoad(&found);
  if (cut.z == 0u) { return false; }
  // A floor found before may be higher: a floor only rises.
  share_is_known = cut.x > floor_high || (cut.x == floor_high && cut.y > floor_low);
  if (share_is_known) {
    floor_high = cut.x;
    floor_low = cut.y;
  }
  // What is kept of the list belongs to the first threads of the teams.
  let part = share_of(0u, params.candidates, 0u).end;
  for (var n = thread; n < count; n += WORKGROUP) {
    if (kept(list_rank[n], list_index[n])) {
      atomicAdd(&bin_count[min(list_index[n] / part, GATHERING - 1u)], list_mass[n]);
    }
  }
  workgroupBarrier();
  let team = WORKGROUP / GATHERING;
  if (thread % team == 0u) { share_mass += atomicLoad(&bin_count[thread / team]); }
  return true;
}
