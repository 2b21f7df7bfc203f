// Cosine similarity of each row's newest hidden state with the earlier ones of its group
// (contrastive search, Su et al. 2022).
//
// Formula:  result[r, t] = x[r] . history[g, t] / (|x[r]| |history[g, t]|) for t < position[r],
//           else -2; g = r / rows
// Bindings: x [groups * rows, width] · history [groups, length, width] ·
//           position [groups * rows] u32 · result [groups * rows, length]
// Threads:  thread -> one element of the result
// Limits:   none

struct Params { count: u32, rows: u32, length: u32, width: u32, }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> history: array<f32>;
@group(0) @binding(2) var<storage, read> position: array<u32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  let row = i / params.length;
  let t = i % params.length;
  if (t >= position[row]) {
    result[i] = -2.0;
    return;
  }
  let a = row * params.width;
  let b = (row / params.rows * params.length + t) * params.width;
  var products = vec3<f32>();
  for (var d = 0u; d < params.width; d++) {
    let pair = vec2<f32>(x[a + d], history[b + d]);
    products += vec3<f32>(pair.x * pair.y, pair * pair);
  }
  result[i] = products.x / sqrt(products.y * products.z);
}
