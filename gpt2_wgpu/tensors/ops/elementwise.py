"""Elementwise arithmetic with broadcasting, and activation functions."""

from __future__ import annotations

import math

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.ops.operands import TensorLike, operands
from gpt2_wgpu.tensors.ops.strides import broadcast, broadcast_strides, merge_axes, numbered
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy

# Numbers of shaders/include/activation.wgsl.
ACTIVATIONS = {
    "linear": 0,
    "gelu_tanh": 1,
    "gelu_erf": 2,
    "quick_gelu": 3,
    "relu": 4,
    "silu": 5,
    "tanh": 6,
    "sigmoid": 7,
}

_OPERATIONS = {"add": 0, "sub": 1, "mul": 2, "div": 3}  # numbers of shaders/binary.wgsl
# dtype → variant of the kernels that compute with it.
SCALARS = {"float32": "f32", "int32": "i32", "uint32": "u32"}


def add(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a + b`` with NumPy's broadcasting.

    Args:
        a: float32 or int32 (wraps on overflow) tensor, or a value that ``tensor`` accepts, which
            takes the dtype of ``b``.
        b: likewise, of the same dtype.

    Returns:
        A new tensor.

    Raises:
        ShapeError: the shapes do not broadcast.
        InvalidArgumentError: the dtypes differ or are not supported.
    """
    return _binary("add", a, b)


def sub(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a - b``; operands and errors as in :func:`add`."""
    return _binary("sub", a, b)


def mul(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a * b``, elementwise; operands and errors as in :func:`add`."""
    return _binary("mul", a, b)


def div(a: TensorLike, b: TensorLike) -> Tensor:
    """Return ``a / b``, float32 only; otherwise as :func:`add`."""
    return _binary("div", a, b, ("float32",))


def _binary(
    name: str, a: TensorLike, b: TensorLike, dtypes: tuple[str, ...] = ("float32", "int32")
) -> Tensor:
    with tidy(name) as scope:
        a, b = operands(name, a, b, dtypes=dtypes)
        shape = broadcast(name, a.shape, b.shape)
        layouts = broadcast_strides(a.shape, shape), broadcast_strides(b.shape, shape)
        axes = numbered(("size", "a", "b"), merge_axes(name, shape, *layouts))
        count = math.prod(shape)
        result = empty(a.device, shape, a.dtype)
        dispatch(
            a.device,
            "binary",
            groups_for(count, 64),
            {"a": a, "b": b, "result": result},
            {"count": count, **axes},
            variant={"scalar": SCALARS[a.dtype]},
            constants={"OPERATION": _OPERATIONS[name]},
        )
        return scope.escape(result)


def activate(x: TensorLike, kind: str) -> Tensor:
    """Apply an activation function to every element of ``x``.

    Args:
        x: float32 tensor.
        kind: a key of ``ACTIVATIONS``.

    Returns:
        A new tensor.

    Raises:
        InvalidArgumentError: ``kind`` is unknown, or the dtype is not float32.
    """
    if kind not in ACTIVATIONS:
        raise InvalidArgumentError(f"activation {shown(kind)} is none of {', '.join(ACTIVATIONS)}")
    with tidy(kind) as scope:
        (x,) = operands(kind, x)
        result = empty(x.device, x.shape)
        dispatch(
            x.device,
            "activate",
            groups_for(x.size, 64),
            {"x": x, "result": result},
            {"count": x.size},
            constants={"ACTIVATION": ACTIVATIONS[kind]},
        )
        return scope.escape(result)


def gelu(x: TensorLike, approximate: bool = True) -> Tensor:
    """GELU (Hendrycks & Gimpel 2016): ``x`` times the standard normal CDF.

    Args:
        x: float32 tensor.
        approximate: whether to use 0.5 x (1 + tanh(sqrt(2/pi)(x + 0.044715 x³))), the default of
            Keras and GPT-2.

    Returns:
        A new tensor.
    """
    return activate(x, "gelu_tanh" if approximate else "gelu_erf")


def relu(x: TensorLike) -> Tensor:
    """ReLU: ``max(x, 0)``."""
    return activate(x, "relu")


def silu(x: TensorLike) -> Tensor:
    """SiLU: ``x * sigmoid(x)``."""
    return activate(x, "silu")


def sigmoid(x: TensorLike) -> Tensor:
    """Logistic sigmoid: ``1 / (1 + exp(-x))``, without overflow."""
    return activate(x, "sigmoid")


def tanh(x: TensorLike) -> Tensor:
    """Hyperbolic tangent, with an absolute error of at most 3e-7."""
    return activate(x, "tanh")


def sqrt(x: TensorLike) -> Tensor:
    """Square root; undefined for negative elements, NaN on most devices."""
    with tidy("sqrt") as scope:
        (x,) = operands("sqrt", x)
        result = empty(x.device, x.shape)
        dispatch(
            x.device,
            "square_root",
            groups_for(x.size, 64),
            {"x": x, "result": result},
            {"count": x.size},
        )
        return scope.escape(result)
