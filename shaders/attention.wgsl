// Attention of each query over keys and values (flash decoding): one workgroup a query, head and
// split of the positions.
//
// Formula:  result = softmax(scale q Kᵀ) V, softmax computed online over chunks of 128 positions
//           (Milakov & Gimelshein 2018; Dao et al. 2022). A query at position p = start[b] + t sees
//           positions 0 .. p if `causal`, else 0 .. keys - 1; a position whose mask is 0 scores
//           -1e9, so that a row with all positions masked becomes the mean (as in Keras), not NaN.
// Bindings: query [tokens, heads, head_dim] · keys [batch, heads, HEAD_DIM8, capacity, 8] and
//           values [batch, heads, capacity, head_dim] (variant `cache`: f32, f16) · start [batch] ·
//           mask [batch, capacity] (if HAS_MASK) · the rest by variant `output`:
//           attention_output_whole.wgsl, or attention_output_partials.wgsl if positions are split
// Threads:  128 share one query: first a thread a position (scores), then a thread eight dimensions
//           of every n-th position (weighted values); workgroup (x, y) -> query * heads + head,
//           (z) -> split; a split that begins after the query's position ends at once
// Limits:   HEAD_DIM8 <= 64 (head_dim 512)

override WORKGROUP: u32 = 128u;
//!include "reduce.wgsl"
//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"
//!include "attention_output_{output}.wgsl"

var<workgroup> q: array<vec4<f32>, WORKGROUP>;
var<workgroup> weights: array<f32, WORKGROUP>; // softmax weights of a chunk
var<workgroup> low: array<vec4<f32>, WORKGROUP>; // sums: of eight dimensions the first four,
var<workgroup> high: array<vec4<f32>, WORKGROUP>; // and the others

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = group.y * groups.x + group.x;
  if (index >= params.queries) { return; }
  let batch_head = batch_head_of(index);
  let begin = group.z * params.split_length;
  let count = min(visible_positions(index), begin + params.split_length);
  if (begin >= count) {
    if (thread == 0u) { write_stats(group.z, index, -3.0e38, 0.0); }
    return;
  }

  if (thread < 2u * HEAD_DIM8) { q[thread] = query[index * 2u * HEAD_DIM8 + thread]; }
  workgroupBarrier();

  let d = thread % HEAD_DIM8; // the eight dimensions that this thread sums up,
  let offset = thread / HEAD_DIM8; // from this position of a chunk on,
  let step = WORKGROUP / HEAD_DIM8; // and the number of threads that share them
  var highest = -3.0e38;
  var total = 0.0;
  var sum = mat2x4<f32>();
  for (var base = begin; base < count; base += WORKGROUP) {
    let position = base + thread;
    var score = -3.0e38;
    if (position < count) {
      score = 0.0;
      for (var i = 0u; i < HEAD_DIM8; i++) {
        let key = key_at(batch_head, position, i);
        score += dot(q[2u * i], key[0]) + dot(q[2u * i + 1u], key[1]);
      }
      score = masked_score(batch_head, position, score);
    }
    let larger = max(highest, workgroup_max(score, thread));
    let own_weight = select(0.0, exp(score - larger), position < count);
    weights[thread] = own_weight;
    let shrink = exp(highest - larger);
    total = total * shrink + workgroup_sum(own_weight, thread); // its barriers publish `weights`
    sum *= shrink;
    highest = larger;
    if (offset < step) {
      let here = min(WORKGROUP, count - base);
      for (var i = offset; i < here; i += step) {
        sum += weights[i] * value_at(batch_head, base + i, d);
      }
    }
  } // `weights` is written again only after the barriers of the next maximum

  low[thread] = sum[0];
  high[thread] = sum[1];
  workgroupBarrier();
  if (thread < 2u * HEAD_DIM8) {
    var all = vec4<f32>(0.0);
    for (var i = thread / 2u; i < step * HEAD_DIM8; i += HEAD_DIM8) {
      all += select(low[i], high[i], thread % 2u == 1u);
    }
    write_output(group.z, index, thread, all, total);
  }
  if (thread == 0u) { write_stats(group.z, index, highest, total); }
}
