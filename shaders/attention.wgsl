// Attention of each query over keys and values, one workgroup a query, head and share of positions.
//
// Formula:  result = softmax(scale * q Kᵀ) V, softmax computed online over chunks of 128 positions
//           (Milakov & Gimelshein 2018; Dao et al. 2022). A query at position p = start[b] + t sees
//           positions 0 .. p if `causal`, else 0 .. keys - 1; a position whose mask is 0 scores
//           -1e9, so that a row with everything masked becomes the mean (as in Keras), not NaN.
// Bindings: query [batch * tokens, heads, 8 * WIDTH8] · keys [batch, heads, WIDTH8, capacity, 8]
//           and values [batch, heads, capacity, 8 * WIDTH8] (variant `cache`: f32, f16) ·
//           start [batch] · mask [batch, capacity] (if HAS_MASK) · the rest by variant `output`:
//           attended_whole.wgsl, or attended_parts.wgsl if positions are split
// Threads:  128 share one query: first a thread a position (scores), then a thread eight dimensions
//           of every n-th position (weighted values); workgroup (x, y) -> query * heads + head,
//           (z) -> which share of positions; one that begins after the query ends at once
// Limits:   WIDTH8 <= 64 (head size 512)

override WORKGROUP: u32 = 128u;
//!include "reduce.wgsl"
//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"
//!include "attended_{output}.wgsl"

var<workgroup> q: array<vec4<f32>, WORKGROUP>;
var<workgroup> weight: array<f32, WORKGROUP>;
var<workgroup> low: array<vec4<f32>, WORKGROUP>; // of eight dimensions the first four,
var<workgroup> high: array<vec4<f32>, WORKGROUP>; // and the others

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = group.y * groups.x + group.x;
  if (index >= params.queries) { return; }
  let line = line_of(index);
  let begin = group.z * params.share;
  let count = min(seen_by(index), begin + params.share);
  if (begin >= count) {
    if (thread == 0u) { put_share(group.z, index, -3.0e38, 0.0); }
    return;
  }

  if (thread < 2u * WIDTH8) { q[thread] = query[index * 2u * WIDTH8 + thread]; }
  workgroupBarrier();

  let d = thread % WIDTH8; // which eight dimensions this thread sums up,
  let offset = thread / WIDTH8; // beginning at which position of a chunk,
  let step = WORKGROUP / WIDTH8; // and how many threads share them
  var highest = -3.0e38;
  var total = 0.0;
  var sum = mat2x4<f32>();
  for (var base = begin; base < count; base += WORKGROUP) {
    let position = base + thread;
    var score = -3.0e38;
    if (position < count) {
      score = 0.0;
      for (var i = 0u; i < WIDTH8; i++) {
        let key = key_at(line, position, i);
        score += dot(q[2u * i], key[0]) + dot(q[2u * i + 1u], key[1]);
      }
      score = scaled(line, position, score);
    }
    let larger = max(highest, workgroup_max(score, thread));
    let share = select(0.0, exp(score - larger), position < count);
    weight[thread] = share;
    let shrink = exp(highest - larger);
    total = total * shrink + workgroup_sum(share, thread); // its barriers publish `weight`
    sum *= shrink;
    highest = larger;
    if (offset < step) {
      let here = min(WORKGROUP, count - base);
      for (var i = offset; i < here; i += step) { sum += weight[i] * value_at(line, base + i, d); }
    }
  } // `weight` is written again only after the barriers of the next maximum

  low[thread] = sum[0];
  high[thread] = sum[1];
  workgroupBarrier();
  if (thread < 2u * WIDTH8) {
    var all = vec4<f32>(0.0);
    for (var i = thread / 2u; i < step * WIDTH8; i += WIDTH8) {
      all += select(low[i], high[i], thread % 2u == 1u);
    }
    put(group.z, index, thread, all, total);
  }
  if (thread == 0u) { put_share(group.z, index, highest, total); }
}
