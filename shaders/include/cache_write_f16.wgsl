// Writes to a KV cache in f16, packed in pairs: two neighbouring elements, rounded. Values beyond
// the range of f16 are clamped to it; NaN stays NaN (tested by its bits, as `clamp` may lose it).
//
// Provides: cache, write_cache
// Needs:    nothing

@group(0) @binding(5) var<storage, read_write> cache: array<u32>;

fn write_cache(pair: u32, value: vec2<f32>) {
  let nan = (bitcast<vec2<u32>>(value) & vec2<u32>(0x7fffffffu)) > vec2<u32>(0x7f800000u);
  let bits = select(vec2<u32>(0u), vec2<u32>(0x7e00u, 0x7e000000u), nan);
  let bounded = clamp(value, vec2<f32>(-65504.0), vec2<f32>(65504.0));
  cache[pair] = pack2x16float(bounded) | bits.x | bits.y;
}
