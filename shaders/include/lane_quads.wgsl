// Quads (quads.wgsl) of which each lane of a subgroup loads one token, for kernels whose threads
// all need the same tokens: a CPU adapter loads a word for each lane, even where all load the same.
//
// Provides: LANE_QUADS, LANE_OUTPUTS, lane_tokens, lane_quad, lane_values, add_lane_products,
//           store_lane_sums
// Needs:    Quad, params.tokens, params.out_features, store
//
// Subgroups have at least four lanes, and the threads of a subgroup must be active together.

const LANE_QUADS: u32 = 4u;   // of a thread
const LANE_OUTPUTS: u32 = 4u; // of a thread

// The tokens that a lane loads, one for each quad; those past the end repeat the last one.
fn lane_tokens(first: u32, lane: u32, tokens: u32) -> vec4<u32> {
  return min(vec4<u32>(first + lane % 4u) + vec4<u32>(0u, 4u, 8u, 12u), vec4<u32>(tokens - 1u));
}

// The values of a quad's four tokens, of which this lane has that of one.
fn lane_values(own: f32) -> vec4<f32> {
  return vec4<f32>(subgroupBroadcast(own, 0u), subgroupBroadcast(own, 1u),
                   subgroupBroadcast(own, 2u), subgroupBroadcast(own, 3u));
}

fn lane_quad(own: mat2x4<f32>) -> Quad {
  return Quad(
      mat4x4<f32>(subgroupBroadcast(own[0], 0u), subgroupBroadcast(own[0], 1u),
                  subgroupBroadcast(own[0], 2u), subgroupBroadcast(own[0], 3u)),
      mat4x4<f32>(subgroupBroadcast(own[1], 0u), subgroupBroadcast(own[1], 1u),
                  subgroupBroadcast(own[1], 2u), subgroupBroadcast(own[1], 3u)));
}

// The sums of an output [quad], a component a token, and the products of eight of its weights.
fn add_lane_products(sums: mat4x4<f32>, w: mat2x4<f32>, x0: Quad, x1: Quad, x2: Quad, x3: Quad)
    -> mat4x4<f32> {
  return mat4x4<f32>(sums[0] + (w[0] * x0.low + w[1] * x0.high),
                     sums[1] + (w[0] * x1.low + w[1] * x1.high),
                     sums[2] + (w[0] * x2.low + w[1] * x2.high),
                     sums[3] + (w[0] * x3.low + w[1] * x3.high));
}

// Stores the sums of outputs n to n + 3 for the tokens from `first` on, without those past the end.
fn store_lane_sums(first: u32, n: u32, sum0: mat4x4<f32>, sum1: mat4x4<f32>, sum2: mat4x4<f32>,
                   sum3: mat4x4<f32>) {
  var sums = array<mat4x4<f32>, 4>(sum0, sum1, sum2, sum3);
  for (var i = 0u; i < 4u * LANE_QUADS; i++) {
    if (first + i >= params.tokens) { break; }
    store(first + i, n, vec2<f32>(sums[0][i / 4u][i % 4u], sums[1][i / 4u][i % 4u]));
    if (n + 2u < params.out_features) {
      store(first + i, n + 2u, vec2<f32>(sums[2][i / 4u][i % 4u], sums[3][i / 4u][i % 4u]));
    }
  }
}
