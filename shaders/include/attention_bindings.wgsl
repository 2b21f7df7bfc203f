// What both attention kernels are called with; see attention.wgsl.

override HAS_MASK: bool = false;

struct Params {
  queries: u32, // batch * tokens * heads
  tokens: u32,
  heads: u32,
  width4: u32,
  capacity: u32,
  keys: u32,
  causal: u32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> start: array<u32>;
@group(0) @binding(4) var<storage, read> mask: array<u32>;
@group(0) @binding(5) var<storage, read_write> result: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;
