// Parameters and bindings of matmul.wgsl and its CPU variant.
//
// Provides: a, b, result, params
// Needs:    nothing

struct Params {
  batches: u32, rows: u32, inner: u32, columns: u32, a_step: u32, b_step: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
