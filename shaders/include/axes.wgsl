// Index arithmetic for arrays of up to six axes (missing axes come first, with size 1).
//
// Provides: Axes, coordinates, place
// Needs:    nothing

alias Axes = array<u32, 6>;

// Coordinates of an element that is number `index` in row-major order.
fn coordinates(index: u32, sizes: Axes) -> Axes {
  var size = sizes;
  var at: Axes;
  var rest = index;
  for (var axis = 6u; axis > 0u; axis--) {
    at[axis - 1u] = rest % size[axis - 1u];
    rest = rest / size[axis - 1u];
  }
  return at;
}

// Its place in a buffer where a step along an axis is so many elements (0: the axis repeats).
fn place(coordinates: Axes, strides: Axes) -> u32 {
  var at = coordinates;
  var stride = strides;
  var sum = 0u;
  for (var axis = 0u; axis < 6u; axis++) { sum += at[axis] * stride[axis]; }
  return sum;
}
