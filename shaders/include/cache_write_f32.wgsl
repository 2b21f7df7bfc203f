// Writes to a KV cache in f32: two neighbouring elements.
//
// Provides: cache, write_cache
// Needs:    nothing

@group(0) @binding(5) var<storage, read_write> cache: array<vec2<f32>>;

fn write_cache(pair: u32, value: vec2<f32>) { cache[pair] = value; }
