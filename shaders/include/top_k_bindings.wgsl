// Parameters and bindings of top_k.wgsl and its CPU variant.
//
// Provides: x, values, indices, params
// Needs:    nothing

struct Params { rows: u32, columns: u32, inner: u32, k: u32, first: u32, end: u32, }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> indices: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;
