// Parameters and bindings of softmax.wgsl and its CPU variant.
//
// Provides: LOGARITHM, x, result, params
// Needs:    nothing

override LOGARITHM: bool = false;

struct Params { rows: u32, columns: u32, inner: u32, }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
