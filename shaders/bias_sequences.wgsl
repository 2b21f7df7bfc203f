// The biases of tokens that end biased sequences of several tokens, for the next step of each row:
// penalize.wgsl adds them. See TokenRules.sequence_bias in nn/token_rules.py.
//
// Formula:  bias[row, t] = b + sum of the biases of the sequences that end with t and whose other
//           tokens end the text, with b the bias of t alone
// Bindings: rules, texts [rows, texts_width]: as in exclude_tokens.wgsl; after the places of the
//           bad words in `rules` come those of the biased tokens: token, its own bias, number of
//           sequences; for each bias, number of other tokens, these · position [rows] · bias [rows,
//           candidates]: only the elements of biased tokens are written
// Threads:  64 threads share workgroup (x) = one row; thread -> biased tokens
// Limits:   rows <= 65,535

struct Params { candidates: u32, texts_width: u32, }
@group(0) @binding(0) var<storage, read> rules: array<u32>;
@group(0) @binding(1) var<storage, read> texts: array<u32>;
@group(0) @binding(2) var<storage, read> position: array<u32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const STOPS: u32 = 3u; // places in `rules`, as in exclude_tokens.wgsl
const BEGIN: u32 = 4u;
const FORCED: u32 = 5u;
const BAD_WORDS: u32 = 6u;
const BIASED: u32 = 8u; // how many tokens
const LISTS: u32 = 9u;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let row = group.x;
  let text = row * params.texts_width + 1u;
  let length = position[row] + 1u;
  let places = LISTS + rules[STOPS] + rules[BEGIN] + rules[FORCED] + rules[BAD_WORDS];
  for (var i = thread; i < rules[BIASED]; i += 64u) {
    let record = rules[places + i];
    var sum = bitcast<f32>(rules[record + 1u]);
    var sequence = record + 3u;
    for (var j = 0u; j < rules[record + 2u]; j++) {
      let others = rules[sequence + 1u];
      var same = others <= length;
      for (var k = 0u; k < others && same; k++) {
        same = rules[sequence + 2u + k] == texts[text + length - others + k];
      }
      if (same) { sum += bitcast<f32>(rules[sequence]); }
      sequence += 2u + others;
    }
    bias[row * params.candidates + rules[record]] = sum;
  }
}
