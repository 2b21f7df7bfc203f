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
// the bit for any number of tokens, as LANES does not depend on it. The eight tokens have names of
// their own: an array that a loop indexes leaves the registers where a compiler keeps the loop. Of
// one token the rounds are unrolled where all lanes have as many, up to four: the next loads are
// issued among the products of the last. With eight tokens that is not faster.

override TOKENS: u32 = 1u;
override LANES: u32 = 32u; // 8 to 128: 2^n or 3 * 2^n
override WORKGROUP: u32 = 64u; // a multiple of LANES
override ROUNDS: u32 = 0u; // steps of each lane, if all have as many: a loop to unroll; else 0
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

// A token of a thread: its number, its first element, the thread's part of its sums (a component an
// output) and of its moments (for NORM).
struct Token { m: u32, shift: f32, sum: vec4<f32>, moments: vec2<f32>, }

// Tokens past the end repeat the last one.
fn token_at(m: u32) -> Token {
  let at = min(m, params.tokens - 1u);
  return Token(at, shift_of(at), vec4<f32>(0.0), vec2<f32>(0.0));
}

// The token with the products of group k of its elements and of four weight rows, [in_feature].
fn with_products(token: Token, k: u32, low: mat4x4<f32>, high: mat4x4<f32>) -> Token {
  var a = read8(token.m, k);
  var moments = token.moments;
  if (NORM) {
    a = subtract_shift(a, token.shift, k);
    moments += moments8(a);
    a = scale_by_gain(a, k);
  }
  let sum = multiply_add(multiply_add(token.sum, low, a[0]), high, a[1]);
  return Token(token.m, token.shift, sum, moments);
}

// Lane m stores token m: TOKENS stores run side by side.
fn kept(own: vec4<f32>, all: vec4<f32>, lane: u32, m: u32) -> vec4<f32> {
  return select(own, all, lane == m);
}

// `all`: moments of tokens m and m + 1.
fn kept_moments(own: vec2<f32>, all: vec4<f32>, lane: u32, m: u32) -> vec2<f32> {
  return select(own, select(all.xy, all.zw, lane % 2u == 1u), lane / 2u == m / 2u);
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
  let steps = params.in_features8 / GROUPS;
  let row = n * steps; // first steps of the weight rows

  var t0 = token_at(first_token);
  var t1 = token_at(first_token + 1u);
  var t2 = token_at(first_token + 2u);
  var t3 = token_at(first_token + 3u);
  var t4 = token_at(first_token + 4u);
  var t5 = token_at(first_token + 5u);
  var t6 = token_at(first_token + 6u);
  var t7 = token_at(first_token + 7u);
  var round = 0u;
  for (var s = lane; select(s < steps, round != ROUNDS, ROUNDS != 0u); s += LANES) {
    round += 1u;
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
      t0 = with_products(t0, k, low, high);
      if (TOKENS > 1u) { t1 = with_products(t1, k, low, high); }
      if (TOKENS > 2u) { t2 = with_products(t2, k, low, high); }
      if (TOKENS > 3u) { t3 = with_products(t3, k, low, high); }
      if (TOKENS > 4u) { t4 = with_products(t4, k, low, high); }
      if (TOKENS > 5u) { t5 = with_products(t5, k, low, high); }
      if (TOKENS > 6u) { t6 = with_products(t6, k, low, high); }
      if (TOKENS > 7u) { t7 = with_products(t7, k, low, high); }
    }
  }

  var own = kept(vec4<f32>(0.0), lanes_sum(t0.sum, thread, lane), lane, 0u);
  if (TOKENS > 1u) { own = kept(own, lanes_sum(t1.sum, thread, lane), lane, 1u); }
  if (TOKENS > 2u) { own = kept(own, lanes_sum(t2.sum, thread, lane), lane, 2u); }
  if (TOKENS > 3u) { own = kept(own, lanes_sum(t3.sum, thread, lane), lane, 3u); }
  if (TOKENS > 4u) { own = kept(own, lanes_sum(t4.sum, thread, lane), lane, 4u); }
  if (TOKENS > 5u) { own = kept(own, lanes_sum(t5.sum, thread, lane), lane, 5u); }
  if (TOKENS > 6u) { own = kept(own, lanes_sum(t6.sum, thread, lane), lane, 6u); }
  if (TOKENS > 7u) { own = kept(own, lanes_sum(t7.sum, thread, lane), lane, 7u); }
  if (NORM) {
    var pair = lanes_sum(vec4<f32>(t0.moments, t1.moments), thread, lane);
    var moments = kept_moments(vec2<f32>(0.0), pair, lane, 0u);
    if (TOKENS > 2u) {
      pair = lanes_sum(vec4<f32>(t2.moments, t3.moments), thread, lane);
      moments = kept_moments(moments, pair, lane, 2u);
    }
    if (TOKENS > 4u) {
      pair = lanes_sum(vec4<f32>(t4.moments, t5.moments), thread, lane);
      moments = kept_moments(moments, pair, lane, 4u);
    }
    if (TOKENS > 6u) {
      pair = lanes_sum(vec4<f32>(t6.moments, t7.moments), thread, lane);
      moments = kept_moments(moments, pair, lane, 6u);
    }
    own = vec4<f32>(apply_norm(n.x, own.x, moments), apply_norm(n.y, own.y, moments),
                    apply_norm(n.z, own.z, moments), apply_norm(n.w, own.w, moments));
  }
  let m = first_token + lane;
  if (lane >= TOKENS || m >= params.tokens || first_n >= params.out_features) { return; }
  store(m, first_n, own.xy);
  if (first_n + 2u < params.out_features) { store(m, first_n + 2u, own.zw); }
}
