// Stores how a decode step predicted the token that it chose, for the readback after some steps.
//
// Formula:  odds[m, 1 + position[m] % 16 * (4 + 2 k) ...] = found[m], values[m], indices[m] as
//           bits; odds[m, 0] = position[m]. A row whose position is odds[m, 0] already has not
//           advanced, because it is finished: it stays as it is.
// Bindings: found [rows, 4] f32 (token_odds.wgsl) · values f32, indices i32 [rows, k] (top_k.wgsl;
//           unread if k = 0) · position [rows] of the chosen token · odds [rows, 1 + 16 (4 + 2 k)]
// Threads:  thread -> one row
// Limits:   none

struct Params { rows: u32, k: u32, }

@group(0) @binding(0) var<storage, read> found: array<u32>;
@group(0) @binding(1) var<storage, read> values: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> position: array<u32>;
@group(0) @binding(4) var<storage, read_write> odds: array<u32>;
@group(0) @binding(5) var<uniform> params: Params;

const RECENT: u32 = 16u; // steps that are stored: RECENT of sampling.py

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= params.rows) { return; }
  let k = params.k;
  let width = 4u + 2u * k;
  let first = row * (1u + RECENT * width);
  let place = position[row];
  if (odds[first] == place) { return; }
  odds[first] = place;
  let slot = first + 1u + place % RECENT * width;
  for (var i = 0u; i < 4u; i++) { odds[slot + i] = found[row * 4u + i]; }
  for (var i = 0u; i < k; i++) {
    odds[slot + 4u + i] = values[row * k + i];
    odds[slot + 4u + k + i] = indices[row * k + i];
  }
}
