// A cache in f16, packed two in a word: two neighbouring elements of it, rounded.

@group(0) @binding(5) var<storage, read_write> cache: array<u32>;

fn write_cache(pair: u32, value: vec2<f32>) {
  cache[pair] = pack2x16float(clamp(value, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}
