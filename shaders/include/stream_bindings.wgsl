// Parameters and bindings of the kernels that only read memory.
//
// Provides: data, result, params
// Needs:    nothing

struct Params { count: u32, }

@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
