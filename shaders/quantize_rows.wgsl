// Activations rounded to int8 in blocks of 32, for integer products with stored blocks.
//
// Formula:  scale = max |x| / 127 of a block, q = round(x / scale)
// Bindings: x [rows, 32 * depth32] f32 · result [rows, depth32] blocks of three vec4<u32>: 32 int8 (four
//           in a word), then the scale (f32) and Σ q (i32)
// Threads:  thread -> one block
// Limits:   none of its own

struct Params { blocks: u32, }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<u32>>;
@group(0) @binding(2) var<uniform> params: Params;

fn packed(at: u32, factor: f32) -> vec4<u32> {
  return vec4<u32>(pack4xI8(vec4<i32>(round(x[at] * factor))),
                   pack4xI8(vec4<i32>(round(x[at + 1u] * factor))),
                   pack4xI8(vec4<i32>(round(x[at + 2u] * factor))),
                   pack4xI8(vec4<i32>(round(x[at + 3u] * factor))));
}

fn sum(four: vec4<u32>) -> i32 {
  return dot4I8Packed(four.x, 0x01010101u) + dot4I8Packed(four.y, 0x01010101u)
       + dot4I8Packed(four.z, 0x01010101u) + dot4I8Packed(four.w, 0x01010101u);
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.blocks) { return; }
  var most = vec4<f32>(0.0);
  for (var k = 0u; k < 8u; k++) { most = max(most, abs(x[8u * i + k])); }
  let largest = max(max(most.x, most.y), max(most.z, most.w));
  let factor = select(0.0, 127.0 / largest, largest > 1e-30);
  let low = packed(8u * i, factor);
  let high = packed(8u * i + 4u, factor);
  result[3u * i] = low;
  result[3u * i + 1u] = high;
  result[3u * i + 2u] = vec4<u32>(bitcast<u32>(largest / 127.0), bitcast<u32>(sum(low) + sum(high)),
                                  0u, 0u);
}
