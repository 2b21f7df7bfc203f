// Top-k, top-p, min-p and the draw over a short list of tokens, read from few chunks of the logits:
// what sample_narrow.wgsl and sample_draw.wgsl do over all, for a top_k of at most LISTED / 2.
//
// Provides: draw_listed
// Needs:    CHUNK, ONE, WORKGROUP, chunks_of, floor_high, found, mass, maxima_and_counts,
//           multiply_high, options_of, rank_high, sampled_token, params.candidates,
//           params.maxima_and_counts_width
//
// The k-th highest rank of the chunks' maxima is a lower bound of the k-th highest rank of the
// logits: k chunks have a logit of at least that rank. So only chunks that reach the bound are
// read, and the logits in them that reach it are listed. The list is short enough to compare each
// token with each other.

const LISTED: u32 = 512u;

var<workgroup> listed: atomic<u32>;
var<workgroup> list_chunk: array<u32, LISTED / 2u>;
var<workgroup> list_index: array<u32, LISTED>;
var<workgroup> list_rank: array<u32, LISTED>;
var<workgroup> list_mass: array<u32, LISTED>;

// A draw, into `sampled_token` -> false if the list would be too long. Every thread must call.
fn draw_listed(row: u32, random: u32, thread: u32) -> bool {
  let uniform_options = options_of(row);
  let k = uniform_options.top_k;
  let chunks = chunks_of(params.candidates);
  if (k == 0u || k > min(chunks, LISTED / 2u) || uniform_options.typical_p < 1.0) { return false; }
  let maxima = row * params.maxima_and_counts_width;
  if (thread == 0u) { atomicStore(&listed, 0u); }
  for (var i = thread; i < chunks; i += WORKGROUP) {
    let own = maxima_and_counts[maxima + i];
    var before = 0u;
    for (var j = 0u; j < chunks; j++) {
      let other = maxima_and_counts[maxima + j];
      before += u32(other > own || (other == own && j < i));
    }
    if (before < k) { list_chunk[before] = i; }
    if (before == k - 1u) { found = vec4<u32>(own); }
  }
  let bound = workgroupUniformLoad(&found).x; // its barriers publish the k chunks, too
  for (var n = thread; n < k * CHUNK; n += WORKGROUP) {
    let i = list_chunk[n / CHUNK] * CHUNK + n % CHUNK;
    if (i >= params.candidates || rank_high(i) < bound) { continue; }
    let place = atomicAdd(&listed, 1u);
    if (place < LISTED) { list_index[place] = i; }
  }
  workgroupBarrier();
  if (thread == 0u) { found = vec4<u32>(atomicLoad(&listed)); }
  let count = workgroupUniformLoad(&found).x;
  if (count > LISTED) { return false; }

  for (var n = thread; n < count; n += WORKGROUP) {
    list_rank[n] = rank_high(list_index[n]);
    list_mass[n] = mass(list_index[n]);
  }
  workgroupBarrier();
  var own_mass: array<u32, LISTED / 32u>; // of every WORKGROUP-th: there are 32 threads at least
  for (var n = thread; n < count; n += WORKGROUP) {
    var order = 0u;
    var before = 0u;
    for (var m = 0u; m < count; m++) {
      if (list_rank[m] > list_rank[n]
          || (list_rank[m] == list_rank[n] && list_index[m] < list_index[n])) {
        order += 1u;
        before += list_mass[m];
      }
    }
    let kept = order < k && list_rank[n] >= floor_high
      && (uniform_options.top_p >= 1.0 || before <= u32(uniform_options.top_p * ONE));
    own_mass[n / WORKGROUP] = select(0u, list_mass[n], kept);
  }
  workgroupBarrier(); // all threads have read
  for (var n = thread; n < count; n += WORKGROUP) { list_mass[n] = own_mass[n / WORKGROUP]; }
  workgroupBarrier();
  var total = 0u;
  for (var m = 0u; m < count; m++) { total += list_mass[m]; }
  let goal = multiply_high(random, total);
  for (var n = thread; n < count; n += WORKGROUP) {
    var before = 0u;
    for (var m = 0u; m < count; m++) {
      before += select(0u, list_mass[m], list_index[m] < list_index[n]);
    }
    if (before <= goal && goal < before + list_mass[n]) { sampled_token = list_index[n]; }
  }
  return true;
}
