// Attention of each query over keys and values, one workgroup a query and head.
//
// Formula:  result = softmax(scale * q Kᵀ) V, softmax computed online over chunks of 128 positions
//           (Milakov & Gimelshein 2018; Dao et al. 2022). A query at position p = start[b] + t sees
//           positions 0 .. p if `causal`, else 0 .. keys - 1; a position whose mask is 0 scores
//           -1e9, so that a row with everything masked becomes the mean (as in Keras), not NaN.
// Bindings: query [batch * tokens, heads, 4 * width4] · keys, values [batch, heads, capacity,
//           4 * width4] · start [batch] · mask [batch, capacity] (if HAS_MASK) · result as query
// Threads:  128 share one query: first a thread a position (scores), then a thread four dimensions
//           of every n-th position (weighted values); workgroup (x, y) -> query * heads + head
// Limits:   width4 <= 128 (head size 512)

override WORKGROUP: u32 = 128u;
//!include "reduce.wgsl"

//!include "attention_bindings.wgsl"

var<workgroup> q: array<vec4<f32>, WORKGROUP>;
var<workgroup> weight: array<f32, WORKGROUP>;
var<workgroup> partial: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = group.y * groups.x + group.x;
  if (index >= params.queries) { return; }
  let width4 = params.width4;
  let head = index % params.heads;
  let b = index / params.heads / params.tokens;
  let t = (index / params.heads) % params.tokens;
  let line = (b * params.heads + head) * params.capacity; // first key of this batch row and head
  var count = params.keys;
  if (params.causal != 0u) { count = min(count, start[b] + t + 1u); }

  if (thread < width4) { q[thread] = query[index * width4 + thread]; }
  workgroupBarrier();

  let d = thread % width4; // which four dimensions this thread sums up,
  let offset = thread / width4; // beginning at which position of a chunk,
  let step = WORKGROUP / width4; // and how many threads share them
  var highest = -3.0e38;
  var total = 0.0;
  var sum = vec4<f32>(0.0);
  for (var base = 0u; base < count; base += WORKGROUP) {
    let position = base + thread;
    var score = -3.0e38;
    if (position < count) {
      score = 0.0;
      let key = (line + position) * width4;
      for (var i = 0u; i < width4; i++) { score += dot(q[i], keys[key + i]); }
      score *= params.scale;
      if (HAS_MASK) { score = select(-1.0e9, score, mask[b * params.capacity + position] != 0u); }
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
      for (var i = offset; i < here; i += step) {
        sum += weight[i] * values[(line + base + i) * width4 + d];
      }
    }
    workgroupBarrier(); // `weight` is written again in the next round
  }

  partial[thread] = sum;
  workgroupBarrier();
  if (thread < width4) {
    var all = vec4<f32>(0.0);
    for (var i = 0u; i < step; i++) { all += partial[i * width4 + thread]; }
    result[index * width4 + thread] = all / total;
  }
}
