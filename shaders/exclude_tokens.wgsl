// The tokens that rules exclude from the next step of each row, as flags in its counts, which the
// head (store_logits.wgsl) or penalize.wgsl obeys. See TokenRules in nn/token_rules.py.
//
// Formula:  a text of L tokens, P of them its prompt, gets the flag BANNED for
//           - every token but the forced ones, if L + 1 is its limit and there are forced ones;
//           - else every token but the forced second one, if L = 1 and there is one (the forced
//             tokens get the flag FORCED); else for
//           - stop tokens, if L < min_length or L - P < min_new_tokens,
//           - the begin-suppressed tokens, if L = P (P + 1 after a forced second token),
//           - the last token of each n-gram of the text whose other tokens end it,
//           - the last token of each bad word whose other tokens end the text.
// Bindings: rules: nine numbers (below), then stop, begin-suppressed and forced tokens, the places
//           of bad words (and of biased tokens: bias_sequences.wgsl), and the bad words: length,
//           tokens · texts [rows, texts_width]: prompt length, tokens; the newest is added
//           · token, position [rows] · row_params [rows]: x is the limit · maxima_and_counts [rows,
//           maxima_and_counts_width]: flags are replaced
// Threads:  256 threads share workgroup (x) = one row
// Limits:   rows <= 65,535

//!include "maxima_and_counts.wgsl"

struct Params {
  candidates: u32,
  maxima_and_counts_width: u32,
  texts_width: u32,
}
@group(0) @binding(0) var<storage, read> rules: array<u32>;
@group(0) @binding(1) var<storage, read_write> texts: array<u32>;
@group(0) @binding(2) var<storage, read> token: array<u32>;
@group(0) @binding(3) var<storage, read> position: array<u32>;
@group(0) @binding(4) var<storage, read> row_params: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> maxima_and_counts: array<atomic<u32>>;
@group(0) @binding(7) var<uniform> params: Params;

const NGRAM: u32 = 0u; // places in `rules`
const MIN_LENGTH: u32 = 1u;
const MIN_NEW: u32 = 2u;
const STOPS: u32 = 3u; // how many
const BEGIN: u32 = 4u;
const LAST: u32 = 5u;
const BAD_WORDS: u32 = 6u;
const SECOND: u32 = 7u; // the forced second token + 1; 0: none
const LISTS: u32 = 9u; // where the lists begin; 8: how many biased tokens

var<private> counts: u32; // place of this row's counts

fn ban(id: u32) {
  if (id < params.candidates) { atomicOr(&maxima_and_counts[counts + id], BANNED); }
}

fn is_last_token(id: u32) -> bool {
  let first = LISTS + rules[STOPS] + rules[BEGIN];
  for (var i = 0u; i < rules[LAST]; i++) {
    if (rules[first + i] == id) { return true; }
  }
  return false;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let row = group.x;
  let text = row * params.texts_width + 1u;
  let length = position[row] + 1u;
  let prompt = texts[text - 1u];
  counts = row * params.maxima_and_counts_width + count_at(0u, params.candidates);
  if (thread == 0u) { texts[text + length - 1u] = token[row]; }
  let is_last = rules[LAST] > 0u && length + 1u == row_params[row].x;
  let only_forced = is_last || (rules[SECOND] > 0u && length == 1u);
  for (var i = thread; i < params.candidates; i += 256u) {
    atomicAnd(&maxima_and_counts[counts + i], ~(BANNED | FORCED));
    if (only_forced) {
      let forced = select(i + 1u == rules[SECOND], is_last_token(i), is_last);
      atomicOr(&maxima_and_counts[counts + i], select(BANNED, FORCED, forced));
    }
  }
  storageBarrier();
  if (only_forced) { return; }

  if (length < rules[MIN_LENGTH] || length - prompt < rules[MIN_NEW]) {
    for (var i = thread; i < rules[STOPS]; i += 256u) { ban(rules[LISTS + i]); }
  }
  let was_forced = rules[SECOND] > 0u && prompt == 1u;
  if (length == prompt + select(0u, 1u, was_forced)) {
    let first = LISTS + rules[STOPS];
    for (var i = thread; i < rules[BEGIN]; i += 256u) { ban(rules[first + i]); }
  }
  let ngram = rules[NGRAM];
  if (ngram > 0u) {
    for (var i = thread; i + ngram <= length; i += 256u) {
      var same = true;
      for (var j = 0u; j + 1u < ngram && same; j++) {
        same = texts[text + i + j] == texts[text + length + 1u - ngram + j];
      }
      if (same) { ban(texts[text + i + ngram - 1u]); }
    }
  }
  let words = LISTS + rules[STOPS] + rules[BEGIN] + rules[LAST];
  for (var i = thread; i < rules[BAD_WORDS]; i += 256u) {
    let word = rules[words + i] + 1u;
    let size = rules[word - 1u];
    var same = size <= length;
    for (var j = 0u; j + 1u < size && same; j++) {
      same = rules[word + j] == texts[text + length + 1u - size + j];
    }
    if (same) { ban(rules[word + size - 1u]); }
  }
}
