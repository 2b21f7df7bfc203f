// Attention scores with masked and future positions hidden.
//
// Formula:  result[b, h, t, s] = -3e38 if `causal` and s > t + keys - queries (weight 0), else -1e9
//           if HAS_MASK and the mask is 0 there (a row with all positions masked becomes the mean,
//           as in Keras, not NaN), else x[b, h, t, s]
// Bindings: x, result [batch, heads, queries, keys] f32 · mask: 32-bit elements of any type, with
//           its own strides (0 along a broadcast axis)
// Threads:  thread -> one score
// Limits:   none

override HAS_MASK: bool = false;

struct Params {
  count: u32, heads: u32, queries: u32, keys: u32,
  mask_b: u32, mask_h: u32, mask_t: u32, mask_s: u32, // strides
  causal: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> mask: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32,
        @builtin(workgroup_id) group: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
  let i = (group.y * groups.x + group.x) * 64u + thread;
  if (i >= params.count) { return; }
  let s = i % params.keys;
  let t = i / params.keys % params.queries;
  let h = i / params.keys / params.queries % params.heads;
  let b = i / params.keys / params.queries / params.heads;
  var score = x[i];
  if (HAS_MASK) {
    let seen = mask[b * params.mask_b + h * params.mask_h + t * params.mask_t + s * params.mask_s];
    if ((seen & 0x7fffffffu) == 0u) { score = -1.0e9; } // 0, 0.0 and -0.0
  }
  if (params.causal != 0u && s + params.queries > t + params.keys) { score = -3.0e38; }
  result[i] = score;
}
