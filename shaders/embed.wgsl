// Token embedding plus position embedding.
//
// Formula:  result[b, t, :] = wte[ids[b, t]] + wpe[start[b] + t]
// Bindings: ids [tokens] u32, tokens = batch * tokens_per_row · weights: rows first_row ..
//           first_row + part_rows of wte [vocabulary, in_features] (variant `weight`: f32, f16, q8,
//           q4) · wpe: rows first_position .. first_position + part_positions of [positions,
//           in_features] f32 · start [batch] u32 · result [tokens, in_features] f32
// Threads:  thread -> eight elements of one token; a token whose id or position is in another part
//           of wte or wpe is left to the dispatch that binds that part
// Limits:   positions past the table are clamped (callers check)

//!include "weight_{weight}.wgsl"

struct Params {
  tokens: u32, tokens_per_row: u32, in_features8: u32, // in_features / 8
  first_row: u32, part_rows: u32,
  positions: u32, first_position: u32, part_positions: u32,
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
  let m = i / params.in_features8;
  let k = i % params.in_features8;
  if (m >= params.tokens) { return; }
  let row = ids[m] - params.first_row; // wraps for a smaller id, which the next test rejects, too
  if (row >= params.part_rows) { return; }
  let b = m / params.tokens_per_row;
  let position = min(start[b] + m % params.tokens_per_row, params.positions - 1u);
  let wpe_row = position - params.first_position; // wraps likewise
  if (wpe_row >= params.part_positions) { return; }
  let token = weights8(row * params.in_features8 + k);
  let place = 2u * (wpe_row * params.in_features8 + k);
  result[2u * i] = token[0] + wpe[place];
  result[2u * i + 1u] = token[1] + wpe[place + 1u];
}
