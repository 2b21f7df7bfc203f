// Linear layer y = x Wᵀ (+ what `store` adds) for few rows: LANES threads share four columns.
//
// Formula:  sum[r, c] = Σ_k x[r, k] * W[c, k], f32 accumulation; then store(r, c, sum)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · weights [columns,
//           8 * depth8] by variant `step`: step_eight.wgsl (variant `weight`), step_q8.wgsl,
//           step_q4.wgsl · the rest by variant `store`: store_plain.wgsl, store_qkv.wgsl or
//           store_logits.wgsl
// Threads:  WORKGROUP = WORKGROUP / LANES times four columns; neighbouring lanes read neighbouring
//           steps of a column; workgroup (x, z) -> columns, (y) -> ROWS rows (1 to 8)
// Limits:   rows <= ROWS * 65,535; step_q8 and step_q4: a depth of whole steps
//
// Each weight is read once, so memory limits, as long as enough of it is under way and little is
// done meanwhile. A lane reads 16 bytes of each of four columns at a time (32 in f32): four loads at
// once, and x (more bytes than quantised weights have), the norm's moments and all counting serve
// four columns. As LANES are many where columns are few, some 25,000 lanes have 1.5 MB under way:
// about what a large GPU needs; more would have less than one step each. Sums of lanes take two
// barriers: eight lanes gather, then everybody adds up those.

override ROWS: u32 = 1u;
override LANES: u32 = 32u; // a power of two, 8 to 128
override WORKGROUP: u32 = 64u; // a multiple of LANES
//!include "step_{step}.wgsl"
//!include "input_{input}.wgsl"
//!include "store_{store}.wgsl"
//!include "folded_norm.wgsl"
//!include "plus.wgsl"

var<workgroup> partial: array<vec4<f32>, WORKGROUP>;
var<workgroup> gathered: array<vec4<f32>, WORKGROUP>;

// The sum of `value` over the lanes that share columns; every thread must call.
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
  let wanted = 4u * ((group.z * groups.x + group.x) * (WORKGROUP / LANES) + thread / LANES);
  // Columns past the end repeat the last one; every thread takes part in the barriers.
  let columns = min(vec4<u32>(wanted) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.columns - 1u));
  let first_row = group.y * ROWS;
  let last_row = params.rows - 1u;
  let steps = params.depth8 / GROUPS;
  let line = columns * steps;

  var shift: array<f32, 8>;
  for (var r = 0u; r < ROWS; r++) { shift[r] = shift_of(min(first_row + r, last_row)); }
  var sum: array<vec4<f32>, 8>; // [row], a component a column
  var moments: array<vec2<f32>, 8>; // of the rows, for NORM
  for (var s = lane; s < steps; s += LANES) {
    let step0 = step_at(line.x + s);
    let step1 = step_at(line.y + s);
    let step2 = step_at(line.z + s);
    let step3 = step_at(line.w + s);
    for (var g = 0u; g < GROUPS; g++) {
      let w0 = group_of(step0, g);
      let w1 = group_of(step1, g);
      let w2 = group_of(step2, g);
      let w3 = group_of(step3, g);
      let low = transpose(mat4x4<f32>(w0[0], w1[0], w2[0], w3[0]));
      let high = transpose(mat4x4<f32>(w0[1], w1[1], w2[1], w3[1]));
      let k = s * GROUPS + g;
      for (var r = 0u; r < ROWS; r++) {
        var a = read8(min(first_row + r, last_row), k);
        if (NORM) {
          a = shifted(a, shift[r], k);
          moments[r] += moments8(a);
          a = gained(a, k);
        }
        sum[r] = plus(plus(sum[r], low, a[0]), high, a[1]);
      }
    }
  }

  // Lane r stores row r: ROWS stores run side by side.
  var mine = vec4<f32>(0.0);
  for (var r = 0u; r < ROWS; r++) {
    let all = lanes_sum(sum[r], thread, lane);
    if (lane == r) { mine = all; }
  }
  if (NORM) {
    var moment = vec2<f32>(0.0);
    for (var r = 0u; r < ROWS; r += 2u) { // two rows' fill a vector
      let all = lanes_sum(vec4<f32>(moments[r], moments[r + 1u]), thread, lane);
      if (lane / 2u == r / 2u) { moment = select(all.xy, all.zw, lane % 2u == 1u); }
    }
    for (var i = 0u; i < 4u; i++) { mine[i] = normed(columns[i], mine[i], moment); }
  }
  if (lane >= ROWS || first_row + lane > last_row || wanted >= params.columns) { return; }
  store(first_row + lane, wanted, mine.xy);
  if (wanted + 2u < params.columns) { store(first_row + lane, wanted + 2u, mine.zw); }
}
