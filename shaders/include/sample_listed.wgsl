// Top-k, top-p, min-p and the draw over a short list of tokens, read from few chunks of the logits:
// what sample_narrow.wgsl and sample_draw.wgsl do over all. For a top_k of at most the number of
// chunks (and of LISTED / 2), or without it for a nucleus (sample_nucleus.wgsl), or a min-p, that
// leave few tokens; not with typical_p.
//
// Provides: lists_top_k, draw_listed
// Needs:    ALL_LOGITS, BINS, CHUNK, LISTED, ONE, Options, WORKGROUP, begin_list, bin_exceeding,
//           bin_mass, chunks_of, clear_bins, cut_list, end_list, first, floor_high, found, highest,
//           kept, list_index, list_mass, list_rank, list_token, listed, logits, maxima_and_counts,
//           multiply_high, nucleus_bound, nucleus_is_short, options_of, own, rank, running_sum,
//           running_total, sampled_token, unrank, params.maxima_and_counts_width
//
// All tokens that may be kept have at least the rank of a bound, so only chunks whose maximum
// reaches it are read. Of top-k it is the k-th highest of the chunks' maxima: k chunks have a logit
// of at least that rank.

var<workgroup> list_chunk: array<u32, LISTED / 2u>;

// Whether the tokens of the top-k are listed.
fn lists_top_k(options: Options) -> bool {
  let most = min(chunks_of(options.candidates), LISTED / 2u);
  return options.top_k > 0u && options.top_k <= most && options.typical_p >= 1.0;
}

// The k chunks with the highest maxima, into list_chunk -> the lowest of these maxima. Every thread
// must call.
fn find_highest_chunks(k: u32, maxima: u32, thread: u32) -> u32 {
  let chunks = chunks_of(own.candidates);
  for (var i = thread; i < chunks; i += WORKGROUP) {
    let maximum = maxima_and_counts[maxima + i];
    var before = 0u;
    for (var j = 0u; j < chunks; j++) {
      let other = maxima_and_counts[maxima + j];
      before += u32(other > maximum || (other == maximum && j < i));
    }
    if (before < k) { list_chunk[before] = i; }
    if (before == k - 1u) { found = vec4<u32>(maximum); }
  }
  return workgroupUniformLoad(&found).x; // its barriers publish the k chunks, too
}

// The chunks whose maxima are at least `bound`, into list_chunk -> how many they are. Every thread
// must call.
fn find_chunks_from(bound: u32, maxima: u32, thread: u32) -> u32 {
  begin_list(thread);
  for (var i = thread; i < chunks_of(own.candidates); i += WORKGROUP) {
    if (maxima_and_counts[maxima + i] < bound) { continue; }
    let place = atomicAdd(&listed, 1u);
    if (place < LISTED / 2u) { list_chunk[place] = i; }
  }
  workgroupBarrier();
  if (thread == 0u) { found = vec4<u32>(atomicLoad(&listed)); }
  return workgroupUniformLoad(&found).x;
}

// The tokens of the first `chunks` of list_chunk that reach `bound`, into the list -> how many they
// are; it ends early if they are too many. Every thread must call.
fn list_tokens_from(bound: u32, chunks: u32, thread: u32) -> u32 {
  begin_list(thread);
  for (var c = 0u; c < chunks && atomicLoad(&listed) <= LISTED; c += 4u) {
    let four = min(vec4<u32>(c) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(chunks - 1u));
    let starts = CHUNK * vec4<u32>(list_chunk[four.x], list_chunk[four.y],
                                   list_chunk[four.z], list_chunk[four.w]);
    for (var n = thread; n < CHUNK; n += WORKGROUP) {
      let i = starts + n;
      let at = first + min(i, vec4<u32>(own.candidates - 1u));
      let values = vec4<f32>(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
      for (var j = 0u; j < 4u; j++) { // four loads are in flight
        if (c + j < chunks && i[j] < own.candidates && rank(values[j]) >= bound) {
          list_token(i[j]);
        }
      }
    }
  }
  return end_list(thread);
}

// A draw, into `sampled_token` -> false if the list would be too long. Every thread must call.
fn draw_listed(row: u32, random: u32, thread: u32) -> bool {
  let uniform_options = options_of(row);
  let k = uniform_options.top_k;
  let maxima = row * params.maxima_and_counts_width;
  let budget = u32(uniform_options.top_p * ONE);
  let by_mass = uniform_options.top_p < 1.0;
  var bound = 0u;
  var is_estimate = false; // the bound: of a nucleus
  var chunks = k;
  if (lists_top_k(uniform_options)) {
    bound = find_highest_chunks(k, maxima, thread);
  } else {
    if (k > 0u || uniform_options.typical_p < 1.0) { return false; }
    if (!by_mass && uniform_options.reach >= ALL_LOGITS) { return false; }
    if (thread == 0u) {
      found = vec4<u32>(floor_high, 1u, 0u, 0u);
      if (by_mass) {
        let nucleus_rank = nucleus_bound();
        found.x = max(floor_high, nucleus_rank);
        found.y = u32(nucleus_is_short());
        found.z = u32(nucleus_rank > floor_high);
      }
    }
    let listing = workgroupUniformLoad(&found);
    if (listing.y == 0u) { return false; }
    bound = listing.x;
    is_estimate = listing.z == 1u;
    chunks = find_chunks_from(bound, maxima, thread);
    if (chunks > LISTED / 2u) { return false; }
  }
  let count = list_tokens_from(bound, chunks, thread);
  if (count > LISTED) { return false; }

  let range = vec2<f32>(0.0, (highest - unrank(bound)) / uniform_options.temperature);
  for (var i = u32(k == 0u); i < 1u + u32(by_mass); i++) { // by top-k, then by top-p
    let is_cut = cut_list(i == 1u, select(k - 1u, budget, i == 1u), 0u, range, count, thread);
    // The list has k tokens, but may lack a part of the nucleus.
    if (!is_cut && (i == 0u || is_estimate)) { return false; }
  }
  draw_from_list(random, count, thread);
  return true;
}

// The first kept token, in index order, at which the running mass exceeds random / 2^32 of all
// kept mass, into `sampled_token`. Every thread must call.
fn draw_from_list(random: u32, count: u32, thread: u32) {
  let part = (own.candidates + BINS - 1u) / BINS; // indices of a bin
  clear_bins(thread);
  var own_mass = 0u;
  for (var n = thread; n < count; n += WORKGROUP) {
    if (!kept(list_rank[n], list_index[n])) { list_mass[n] = 0u; }
    atomicAdd(&bin_mass[list_index[n] / part], list_mass[n]);
    own_mass += list_mass[n];
  }
  _ = running_sum(own_mass, thread);
  let goal = multiply_high(random, running_total());
  let bin = bin_exceeding(goal, 0u, thread);
  for (var n = thread; n < count; n += WORKGROUP) {
    if (list_index[n] / part != bin.x) { continue; }
    var before = 0u;
    for (var m = 0u; m < count; m++) {
      before += select(0u, list_mass[m], list_index[m] < list_index[n]);
    }
    if (before <= goal && goal < before + list_mass[n]) { sampled_token = list_index[n]; }
  }
}
