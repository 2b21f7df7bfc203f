// Parameters and bindings of layer_norm.wgsl and its CPU variant.
//
// Provides: x, weight, bias, result, params
// Needs:    nothing

struct Params { rows: u32, columns: u32, stride: u32, epsilon: f32, }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;
