// Activation functions, chosen by the override ACTIVATION (ops/elementwise.py names them).
//
// Provides: ACTIVATION, activate
// Needs:    nothing
//
// All of them use `sigmoid`, and that only exp: WGSL allows the builtin tanh an absolute error of
// 1e-5, and some drivers return NaN for tanh of a large argument. Since (1 + tanh(y)) / 2 =
// sigmoid(2 y), GELU needs no tanh, and its tail does not cancel.

override ACTIVATION: u32 = 0u;

fn sigmoid(x: f32) -> f32 {
  let size = abs(x);
  let e = exp(-select(size, 80.0, size > 80.0)); // neither overflows nor underflows; NaN stays NaN
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// erfc(z) for z >= 0 with a relative error of 1.2e-7: Chebyshev fit of W. H. Press et al.,
// Numerical Recipes in Fortran 77, 2nd ed. 1992, section 6.2, `erfcc`.
fn erfc_positive(z: f32) -> f32 {
  let t = 1.0 / (1.0 + 0.5 * z);
  var fit = 0.17087277;
  fit = fit * t - 0.82215223;
  fit = fit * t + 1.48851587;
  fit = fit * t - 1.13520398;
  fit = fit * t + 0.27886807;
  fit = fit * t - 0.18628806;
  fit = fit * t + 0.09678418;
  fit = fit * t + 0.37409196;
  fit = fit * t + 1.00002368;
  return t * exp(fit * t - 1.26551223 - z * z);
}

fn gelu_tanh(x: f32) -> f32 { // Hendrycks & Gimpel 2016, GPT-2's `gelu_new`
  return x * sigmoid(1.5957691216 * (x + 0.044715 * x * x * x)); // 2 sqrt(2 / pi)
}

fn gelu_erf(x: f32) -> f32 { // x times the normal distribution's cumulative function
  let tail = 0.5 * erfc_positive(min(abs(x), 13.0) * 0.70710678118); // 6e-39 beyond: nothing
  return x * select(tail, 1.0 - tail, x >= 0.0);
}

fn activate(x: f32) -> f32 {
  switch ACTIVATION {
    case 1u: { return gelu_tanh(x); }
    case 2u: { return gelu_erf(x); }
    case 3u: { return x * sigmoid(1.702 * x); } // quick_gelu
    case 4u: { return select(x, 0.0, x < 0.0); } // relu; NaN stays NaN
    case 5u: { return x * sigmoid(x); } // silu
    case 6u: { return 2.0 * sigmoid(2.0 * x) - 1.0; } // tanh
    case 7u: { return sigmoid(x); }
    default: { return x; }
  }
}
