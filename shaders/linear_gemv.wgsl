// Linear layer y = x Wᵀ (+ what `store` adds) for few tokens, GEMV: LANES threads share four
// outputs.
//
// Formula:  sum[m, n] = Σ_k x[m, k] W[n, k], f32 accumulation; then store(m, n, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_partials.wgsl · weights [out_features,
//           in_features] by variant `step`: step_eight.wgsl (variant `weight`), step_q8.wgsl,
//           step_q4.wgsl · the rest by variant `store`: store_plain.wgsl, store_qkv.wgsl or
//           store_logits.wgsl
// Threads:  LANES threads -> four outputs of TOKENS tokens (1 to 8); neighbouring lanes read
//           neighbouring steps of a weight row; workgroup (x, z) -> WORKGROUP / LANES times four
//           outputs of TOKENS tokens, all tokens of some outputs in neighbouring workgroups
// Limits:   tokens <= TOKENS * 65,535; step_q8 and step_q4: in_features is a whole number of steps
//
// Memory-bound: each weight is read once for TOKENS tokens; the workgroups of other tokens run at
// the same time and find it in a cache. Keep many loads in flight and little ALU work per load. A
// lane reads 16 bytes (32 in f32) of each of four weight rows at a time: four loads at once, and x
// (more bytes than quantised weights), the norm's moments and the counting serve four outputs.
// LANES are many if out_features are few, so that some 25,000 lanes have 1.5 MB in flight, about
// what a large GPU needs; more lanes would have less than one step each. Sums of lanes take two
// barriers: eight lanes gather, then every lane adds up those eight. A token's sum is the same to
// the bit for any number of tokens, as LANES does not depend on it.

override TOKENS: u32 = 1u;
override LANES: u32 = 32u; // 8 to 128: 2^n or 3 * 2^n
override WORKGROUP: u32 = 64u; // a multiple of LANES
//!include "step_{step}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "folded_norm.wgsl"
//!include "multiply_add.wgsl"

var<workgroup> partial: array<vec4<f32>, WORKGROUP>;
var<workgroup> gathered: array<vec4<f32>, WORKGROUP>;

// The sum of `value` over the lanes that share outputs; every thread must call.
fn lanes_sum(value: vec4<f32>, thread: u32, lane: u32) -> vec4<f32> {
  partial[thread] = value;
  workgroupBarrier();
  if (lane < 8u) {
    var some = value;
    for (var i = 8u; i < LANES - lane; i += 8u) { some += partial[thread + i]; }
    gathered[thread] = some;
  }
  workgroupBarrier(); // the next call writes `partial` now, but `gathered` only after its barrier
  var all = vec4<f32>(0.0);
  for (var i = 0u; i < 8u; i++) { all += gathered[thread - lane + i]; }
  return all;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let lane = thread % LANES;
  let sharing = (params.tokens + TOKENS - 1u) / TOKENS; // workgroups with these outputs
  let block = group.z * (groups.x / sharing) + group.x / sharing;
  let first_n = 4u * (block * (WORKGROUP / LANES) + thread / LANES);
  // Outputs past the end repeat the last one: every thread takes part in the barriers.
  let last_n = params.out_features - 1u;
  let n = min(vec4<u32>(first_n) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last_n));
  let first_token = group.x % sharing * TOKENS;
  let last_token = params.tokens - 1u;
  let steps = params.in_features8 / GROUPS;
  let row = n * steps; // first steps of the weight rows

  var shift: array<f32, 8>;
  for (var m = 0u; m < TOKENS; m++) { shift[m] = shift_of(min(first_token + m, last_token)); }
  var sum: array<vec4<f32>, 8>; // [token], a component an output
  var moments: array<vec2<f32>, 8>; // of the tokens, for NORM
  for (var s = lane; s < steps; s += LANES) {
    let step0 = step_at(row.x + s);
    let step1 = step_at(row.y + s);
    let step2 = step_at(row.z + s);
    let step3 = step_at(row.w + s);
    for (var g = 0u; g < GROUPS; g++) {
      let w0 = group_of(step0, g);
      let w1 = group_of(step1, g);
      let w2 = group_of(step2, g);
      let w3 = group_of(step3, g);
      let low = transpose(mat4x4<f32>(w0[0], w1[0], w2[0], w3[0]));
      let high = transpose(mat4x4<f32>(w0[1], w1[1], w2[1], w3[1]));
      let k = s * GROUPS + g;
      for (var m = 0u; m < TOKENS; m++) {
        var a = read8(min(first_token + m, last_token), k);
        if (NORM) {
          a = subtract_shift(a, shift[m], k);
          moments[m] += moments8(a);
          a = scale_by_gain(a, k);
        }
        sum[m] = multiply_add(multiply_add(sum[m], low, a[0]), high, a[1]);
      }
    }
  }

  // Lane m stores token m: TOKENS stores run side by side.
  var own = vec4<f32>(0.0);
  for (var m = 0u; m < TOKENS; m++) {
    let all = lanes_sum(sum[m], thread, lane);
    if (lane == m) { own = all; }
  }
  if (NORM) {
    var moment = vec2<f32>(0.0);
    for (var m = 0u; m < TOKENS; m += 2u) { // the moments of two tokens fill a vector
      let all = lanes_sum(vec4<f32>(moments[m], moments[m + 1u]), thread, lane);
      if (lane / 2u == m / 2u) { moment = select(all.xy, all.zw, lane % 2u == 1u); }
    }
    own = vec4<f32>(apply_norm(n.x, own.x, moment), apply_norm(n.y, own.y, moment),
                    apply_norm(n.z, own.z, moment), apply_norm(n.w, own.w, moment));
  }
  let m = first_token + lane;
  if (lane >= TOKENS || m > last_token || first_n >= params.out_features) { return; }
  store(m, first_n, own.xy);
  if (first_n + 2u < params.out_features) { store(m, first_n + 2u, own.zw); }
}
