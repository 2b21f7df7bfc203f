// Activations as int8 in blocks of 32, for linear_w8a8_gemm_cpu.wgsl.
//
// Formula:  scale = max |norm(x)| / 127 of a block, level = round(norm(x) / scale)
// Bindings: x by variant `input`: input_plain.wgsl or input_partials.wgsl · levels [tokens,
//           in_features] int8, four in a word · scales [tokens, in_features / 32] f32
// Threads:  workgroup -> token, thread -> every 16th block
// Limits:   in_features a multiple of 32

const THREADS: u32 = 16u;
//!include "input_{input}.wgsl"
//!include "norm_moments.wgsl"
//!include "quantize_activations.wgsl"

struct Params { tokens: u32, in_features8: u32, norm_features: u32, epsilon: f32, }

@group(0) @binding(1) var<storage, read_write> levels: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let m = group.y * groups.x + group.x;
  if (m >= params.tokens) { return; }
  var norm = vec2<f32>(0.0, 1.0);
  if (NORM) { norm = norm_of(m, thread); }
  let blocks = params.in_features8 / 4u;
  for (var i = thread; i < blocks; i += THREADS) {
    let block = rounded_block(m, i, norm);
    let at = m * blocks + i;
    levels[2u * at] = block.low;
    levels[2u * at + 1u] = block.high;
    scales[at] = block.scale;
  }
}
