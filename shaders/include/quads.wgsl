// A thread's block of outputs in the GEMM kernels for CPU adapters: 8 outputs of 4 * QUADS tokens.
// Four tokens of x are a Quad, and the sums of one output a mat2x4: [quad], a component a token.
//
// Provides: QUADS, Quad, quad, add_products
// Needs:    nothing

override QUADS: u32 = 2u; // 1 or 2

struct Quad { // eight elements of four tokens; v * m is one dot product a token
  low: mat4x4<f32>,
  high: mat4x4<f32>,
}

fn quad(a: mat2x4<f32>, b: mat2x4<f32>, c: mat2x4<f32>, d: mat2x4<f32>) -> Quad {
  return Quad(mat4x4<f32>(a[0], b[0], c[0], d[0]), mat4x4<f32>(a[1], b[1], c[1], d[1]));
}

// The sums of an output, and the products of eight of its weights with both quads.
fn add_products(sums: mat2x4<f32>, w: mat2x4<f32>, x0: Quad, x1: Quad) -> mat2x4<f32> {
  var result = sums;
  result[0] += w[0] * x0.low + w[1] * x0.high;
  if (QUADS == 2u) { result[1] += w[0] * x1.low + w[1] * x1.high; }
  return result;
}
