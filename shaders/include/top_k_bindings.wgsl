// Parameters and bindings of top_k.wgsl and its CPU variant, and the order of the elements.
//
// Provides: x, values, indices, params, order, precedes
// Needs:    nothing

struct Params { rows: u32, columns: u32, inner: u32, k: u32, first: u32, end: u32, chunk: u32, }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> indices: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

// Floats as words in the same order: NaN, of either sign, above infinity; -0 equals 0. (WGSL
// compilers may assume that comparisons of floats see no NaN.)
fn order(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
  if (bits == 0x80000000u) { return bits; }
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// Whether an element, by `order`, comes before another one.
fn precedes(rank: u32, index: u32, other_rank: u32, other: u32) -> bool {
  return rank > other_rank || (rank == other_rank && index < other);
}
