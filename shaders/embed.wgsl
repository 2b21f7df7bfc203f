// Token embedding plus position embedding.
//
// Formula:  result[b, t, :] = wte[ids[b, t]] + wpe[start[b] + t]
// Bindings: ids [rows] u32, rows = batch * tokens · weights: rows `first` .. `first + lines` of wte
//           [vocabulary, 8 * depth8] (variant `weight`: f32, f16, q8, q4) · wpe: rows `before` ..
//           `before + places` of [positions, 8 * depth8] f32 · start [batch] u32 · result [rows, 8 * depth8] f32
// Threads:  thread -> eight elements of one row; a row whose id or position is in another part of
//           wte or wpe is left to the dispatch that binds that part
// Limits:   positions past the table are clamped (callers check)

//!include "weight_{weight}.wgsl"

struct Params {
  rows: u32, tokens: u32, depth8: u32, first: u32, lines: u32, positions: u32, before: u32, places: u32,
}

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> wpe: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read_write> result: array<vec4<f32>>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  let row = i / params.depth8;
  let k = i % params.depth8;
  if (row >= params.rows) { return; }
  let line = ids[row] - params.first; // wraps for a smaller id, which the next test refuses too
  if (line >= params.lines) { return; }
  let position = min(start[row / params.tokens] + row % params.tokens, params.positions - 1u);
  let seat = position - params.before; // wraps likewise
  if (seat >= params.places) { return; }
  let token = weights8(line * params.depth8 + k);
  let place = 2u * (seat * params.depth8 + k);
  result[2u * i] = token[0] + wpe[place];
  result[2u * i + 1u] = token[1] + wpe[place + 1u];
}
