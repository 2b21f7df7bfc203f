// Rows of activations as int8 in blocks of 32, for linear_w8a8_gemm_cpu.wgsl (CPU adapters).
//
// Formula:  scale = max |norm(x)| / 127 of a block, level = round(norm(x) / scale)
// Bindings: x by variant `input`: input_plain.wgsl or input_parts.wgsl · levels [rows, 8 * depth8]
//           int8, four in a word · scales [rows, depth8 / 4] f32
// Threads:  workgroup -> row, thread -> every 16th block
// Limits:   depth8 a multiple of 4

const THREADS: u32 = 16u;
//!include "input_{input}.wgsl"
//!include "row_moments.wgsl"
//!include "quantize_activations.wgsl"

struct Params { rows: u32, depth8: u32, width: u32, epsilon: f32, }

@group(0) @binding(1) var<storage, read_write> levels: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  var norm = vec2<f32>(0.0, 1.0);
  if (NORM) { norm = norm_of(row, thread); }
  let blocks = params.depth8 / 4u;
  for (var i = thread; i < blocks; i += THREADS) {
    let block = rounded_block(row, i, norm);
    let at = row * blocks + i;
    levels[2u * at] = block.low;
    levels[2u * at + 1u] = block.high;
    scales[at] = block.scale;
  }
}
