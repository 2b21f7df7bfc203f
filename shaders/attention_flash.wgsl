// Attention of many queries over keys and values (flash attention): 32 queries of a head a
// workgroup, which share the keys and values that it reads.
//
// Formula:  as attention.wgsl, 64 positions at a time
// Bindings: as attention.wgsl
// Threads:  16 x 8 a workgroup: of 32 queries and 64 positions, thread -> scores of 4 queries
//           (ty + 8 i) and 4 positions (4 tx + j), then sums of those queries and dimensions
//           4 tx + j, 64 + 4 tx + j; workgroup y * workgroups.x + x -> tile of queries, batch row
//           and head, the last tiles first, as these see the most positions
// Limits:   HEAD_DIM8 <= 16 (head_dim 128); positions are not split
//
// A tile of positions that no query of the workgroup sees is never read. Keys and queries pass
// through workgroup memory in slices of 16 dimensions, values in slices of 16 positions, always as
// vec4. Scores stay in registers; only their maxima and the weights are shared.

//!include "cache_read_{cache}.wgsl"
//!include "attention_bindings.wgsl"
//!include "attention_output_whole.wgsl"
//!include "multiply_add.wgsl"

const QUERIES: u32 = 32u;
const POSITIONS: u32 = 64u;
const PITCH: u32 = 5u; // vec4 from row to row: with 4 every other row would be in the same banks
const KEYS: u32 = QUERIES * PITCH; // begin of a slice of keys, after one of queries

// A slice of [query, 4] and of [position, 4]; or the maxima [query / 4, 16]; or a slice of values
// [position, dimension / 4].
var<workgroup> slice: array<vec4<f32>, 512>;
var<workgroup> weights: array<vec4<f32>, 512>; // [query, position / 4]

// Of a query: scores of four positions, too low to count where it does not see them.
fn visible_scores(batch_head: u32, p: vec4<u32>, product: vec4<f32>, seen: vec4<bool>)
    -> vec4<f32> {
  let score = vec4<f32>(
      masked_score(batch_head, p.x, product.x), masked_score(batch_head, p.y, product.y),
      masked_score(batch_head, p.z, product.z), masked_score(batch_head, p.w, product.w));
  return select(vec4<f32>(-3.0e38), score, seen);
}

fn weights_of(score: vec4<f32>, highest: f32, seen: vec4<bool>) -> vec4<f32> {
  return select(vec4<f32>(0.0), exp(score - highest), seen);
}

// Of a query: what this thread has summed up.
fn write_dimensions(index: u32, x: u32, low: vec4<f32>, high: vec4<f32>, total: f32) {
  if (x < 2u * HEAD_DIM8) { write_output(0u, index, x, low, total); }
  if (x + 16u < 2u * HEAD_DIM8) { write_output(0u, index, x + 16u, high, total); }
}

@compute @workgroup_size(16, 8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let index = group.y * groups.x + group.x;
  let batch_heads = params.queries / params.tokens_per_row;
  let tiles = (params.tokens_per_row + QUERIES - 1u) / QUERIES;
  if (index >= batch_heads * tiles) { return; }
  let batch_head = index % batch_heads;
  let first = (tiles - 1u - index / batch_heads) * QUERIES; // token of the first query
  let last = params.tokens_per_row - 1u;                      // queries past it repeat it
  // Indices of queries as in attention.wgsl: of the first token, and of this thread.
  let head = batch_head / params.heads * params.tokens_per_row * params.heads
      + batch_head % params.heads;
  let own = head + params.heads * min(vec4<u32>(first + local.y) + vec4<u32>(0u, 8u, 16u, 24u),
                                      vec4<u32>(last));
  let visible = vec4<u32>(visible_positions(own.x), visible_positions(own.y),
                          visible_positions(own.z), visible_positions(own.w));
  let count = visible_positions(head + params.heads * min(first + QUERIES - 1u, last));

  // This thread loads four dimensions of a query, eight of a key.
  let load_query = head + params.heads * min(first + thread / 4u, last);
  let load_key = thread % POSITIONS;
  let query_slot = thread / 4u * PITCH + thread % 4u;
  // Key 4 tx + j is at 16 j + tx, so that neighbours read neighbouring rows.
  let key_slot = KEYS + (load_key % 4u * 16u + load_key / 4u) * PITCH + thread / POSITIONS * 2u;

  var highest = vec4<f32>(-3.0e38); // a component a query, here and in `total`
  var total = vec4<f32>(0.0);       // over this thread's positions
  var low = mat4x4<f32>();          // [query]: sums of dimensions 4 tx + j,
  var high = mat4x4<f32>();         // and of 64 + 4 tx + j
  for (var base = 0u; base < count; base += POSITIONS) {
    // Scores: [query], a component a position.
    var score = mat4x4<f32>();
    for (var i8 = 0u; i8 < HEAD_DIM8; i8 += 2u) {
      let i4 = 2u * i8 + thread % 4u;
      var q = vec4<f32>(0.0);
      if (i4 < 2u * HEAD_DIM8) { q = query[load_query * 2u * HEAD_DIM8 + i4]; }
      let i = i8 + thread / POSITIONS;
      var key = mat2x4<f32>();
      if (i < HEAD_DIM8) { key = key_at(batch_head, min(base + load_key, count - 1u), i); }
      slice[query_slot] = q;
      slice[key_slot] = key[0];
      slice[key_slot + 1u] = key[1];
      workgroupBarrier();
      for (var k = 0u; k < 4u; k++) {
        let at = KEYS + local.x * PITCH + k;
        let keys = transpose(mat4x4<f32>(slice[at], slice[at + 16u * PITCH],
                                         slice[at + 32u * PITCH], slice[at + 48u * PITCH]));
        let queries = local.y * PITCH + k;
        score[0] = multiply_add(score[0], keys, slice[queries]);
        score[1] = multiply_add(score[1], keys, slice[queries + 8u * PITCH]);
        score[2] = multiply_add(score[2], keys, slice[queries + 16u * PITCH]);
        score[3] = multiply_add(score[3], keys, slice[queries + 24u * PITCH]);
      }
      workgroupBarrier();
    }

    // Weights: positions past a query's last get a score too low to count, and weight 0.
    let position = vec4<u32>(base + 4u * local.x) + vec4<u32>(0u, 1u, 2u, 3u);
    let p = min(position, vec4<u32>(count - 1u));
    score = mat4x4<f32>(visible_scores(batch_head, p, score[0], position < vec4<u32>(visible.x)),
                        visible_scores(batch_head, p, score[1], position < vec4<u32>(visible.y)),
                        visible_scores(batch_head, p, score[2], position < vec4<u32>(visible.z)),
                        visible_scores(batch_head, p, score[3], position < vec4<u32>(visible.w)));
    let by_position = transpose(score);
    slice[thread] = max(max(by_position[0], by_position[1]), max(by_position[2], by_position[3]));
    workgroupBarrier();
    var larger = highest;
    for (var i = 0u; i < 16u; i++) { larger = max(larger, slice[local.y * 16u + i]); }
    let shrink = exp(highest - larger);
    highest = larger;
    let own0 = weights_of(score[0], larger.x, position < vec4<u32>(visible.x));
    let own1 = weights_of(score[1], larger.y, position < vec4<u32>(visible.y));
    let own2 = weights_of(score[2], larger.z, position < vec4<u32>(visible.z));
    let own3 = weights_of(score[3], larger.w, position < vec4<u32>(visible.w));
    let one = vec4<f32>(1.0);
    total = total * shrink
        + vec4<f32>(dot(own0, one), dot(own1, one), dot(own2, one), dot(own3, one));
    let own_slot = local.y * 16u + local.x;
    weights[own_slot] = own0;
    weights[own_slot + 128u] = own1;
    weights[own_slot + 256u] = own2;
    weights[own_slot + 384u] = own3;
    low = mat4x4<f32>(low[0] * shrink.x, low[1] * shrink.y, low[2] * shrink.z, low[3] * shrink.w);
    high = mat4x4<f32>(high[0] * shrink.x, high[1] * shrink.y, high[2] * shrink.z,
                       high[3] * shrink.w);
    workgroupBarrier();

    // Sums of weighted values.
    for (var begin = 0u; begin < min(POSITIONS, count - base); begin += 16u) {
      for (var i = thread; i < 16u * HEAD_DIM8; i += 128u) {
        let p = min(base + begin + i / HEAD_DIM8, count - 1u);
        let value = value_at(batch_head, p, i % HEAD_DIM8);
        slice[2u * i] = value[0];
        slice[2u * i + 1u] = value[1];
      }
      workgroupBarrier();
      for (var k = 0u; k < 4u; k++) {
        let at = local.y * 16u + begin / 4u + k;
        let w0 = weights[at];
        let w1 = weights[at + 128u];
        let w2 = weights[at + 256u];
        let w3 = weights[at + 384u];
        let step = 2u * HEAD_DIM8;
        let here = 4u * k * step + local.x;
        if (local.x < step) {
          let values = mat4x4<f32>(slice[here], slice[here + step], slice[here + 2u * step],
                                   slice[here + 3u * step]);
          low[0] = multiply_add(low[0], values, w0);
          low[1] = multiply_add(low[1], values, w1);
          low[2] = multiply_add(low[2], values, w2);
          low[3] = multiply_add(low[3], values, w3);
        }
        if (local.x + 16u < step) {
          let values = mat4x4<f32>(slice[here + 16u], slice[here + step + 16u],
                                   slice[here + 2u * step + 16u], slice[here + 3u * step + 16u]);
          high[0] = multiply_add(high[0], values, w0);
          high[1] = multiply_add(high[1], values, w1);
          high[2] = multiply_add(high[2], values, w2);
          high[3] = multiply_add(high[3], values, w3);
        }
      }
      workgroupBarrier();
    }
  }

  slice[thread] = total;
  workgroupBarrier();
  var all = vec4<f32>(0.0);
  for (var i = 0u; i < 16u; i++) { all += slice[local.y * 16u + i]; }
  let stored = vec4<u32>(first + local.y) + vec4<u32>(0u, 8u, 16u, 24u) <= vec4<u32>(last);
  if (stored.x) { write_dimensions(own.x, local.x, low[0], high[0], all.x); }
  if (stored.y) { write_dimensions(own.y, local.x, low[1], high[1], all.y); }
  if (stored.z) { write_dimensions(own.z, local.x, low[2], high[2], all.z); }
  if (stored.w) { write_dimensions(own.w, local.x, low[3], high[3], all.w); }
}
