// Layer normalisation over the last axis, one thread a row (no barriers: for CPU adapters).
//
// Formula:  as layer_norm.wgsl
// Bindings: as layer_norm.wgsl
// Threads:  thread -> row (y * workgroups.x + x) * 8 + local index
// Limits:   none on rows or columns

struct Params { rows: u32, columns: u32, stride: u32, epsilon: f32, }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(8)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let row = (group.y * groups.x + group.x) * 8u + thread;
  if (row >= params.rows) { return; }
  let first = row * params.stride;
  let count = f32(params.columns);

  var sum = 0.0;
  for (var c = 0u; c < params.columns; c++) { sum += x[first + c]; }
  let mean = sum / count;

  var squares = 0.0;
  for (var c = 0u; c < params.columns; c++) {
    let d = x[first + c] - mean;
    squares += d * d;
  }
  let scale = inverseSqrt(squares / count + params.epsilon);

  for (var c = 0u; c < params.columns; c++) {
    result[first + c] = (x[first + c] - mean) * scale * weight[c] + bias[c];
  }
  for (var c = params.columns; c < params.stride; c++) { result[first + c] = 0.0; }
}
