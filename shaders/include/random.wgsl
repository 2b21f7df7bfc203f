// Counter-based random numbers: the same key gives the same number on every adapter, and no state
// is stored between draws. PCG4D of Jarzynski & Olano, "Hash Functions for GPU Rendering", JCGT
// 9(3), 2020.
//
// Provides: pcg4d, multiply_high
// Needs:    nothing

fn pcg4d(key: vec4<u32>) -> vec4<u32> {
  var v = key * 1664525u + 1013904223u;
  v.x += v.y * v.w; v.y += v.z * v.x; v.z += v.x * v.y; v.w += v.y * v.z;
  v = v ^ (v >> vec4<u32>(16u));
  v.x += v.y * v.w; v.y += v.z * v.x; v.z += v.x * v.y; v.w += v.y * v.z;
  return v;
}

// floor(a * b / 2^32): scales a random word to [0, b).
fn multiply_high(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let mid2 = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (mid >> 16u) + (mid2 >> 16u);
}
