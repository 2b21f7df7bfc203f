"""Base class of layers: name, dtype, weights and configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from gpt2_wgpu.copying import CopiedByAttributes
from gpt2_wgpu.errors import DisposedTensorError, InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.initializers import Initializer, initial_values
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, dispose, keep, tensor, tidy
from gpt2_wgpu.tensors.ops.operands import operands
from gpt2_wgpu.validation import made_from
from gpt2_wgpu.webgpu import Device, checked_device, default_device
from gpt2_wgpu.weight_formats import check_weight_format

Shapes = dict[str, tuple[int, ...]]  # of weights, by Keras' names and in its order


def weight_list(weights: Any) -> list[Any]:
    """Return ``weights`` as a list; InvalidArgumentError if they are no sequence."""
    if isinstance(weights, str | bytes | Mapping):
        raise _no_list(weights)
    try:
        return list(weights)
    except TypeError:
        raise _no_list(weights) from None


def _no_list(weights: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"weights must be a list of tensors or arrays, as of get_weights(), not {shown(weights)}"
    )


class Layer(CopiedByAttributes):
    """Base class of layers. Weights are made by the first call, or loaded by ``set_weights``.

    Args:
        name: name in configurations; default: the class's.
        dtype: weight dtype of matrices: "float32", "float16" or quantised. Arithmetic is f32.
        device: default: the default device.
    """

    _instead_of_pickling = "make it there from get_config() and get_weights()"

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: str | Mapping[str, Any] | None = None,
        device: Device | None = None,
        trainable: bool = True,
    ) -> None:
        if isinstance(dtype, Mapping):  # a DTypePolicy, serialised by Keras
            dtype = dtype.get("config", {}).get("name")
        self.name = name or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        self.dtype = "float32" if dtype is None else str(dtype)
        check_weight_format(self.dtype)
        self.trainable = trainable  # without effect: layers are for inference
        self.built = self.disposed = False
        self._device = checked_device(device)
        self._shapes: Shapes = {}
        self._weights: Any = None  # as the functions of ``nn`` take them
        self._is_of_model = False

    @property
    def device(self) -> Device:
        """Device of the weights."""
        if self._device is None:
            self._device = default_device()
        return self._device

    @classmethod
    def of_model(
        cls, weights: Any, device: Device, input_shape: Sequence[Any], **config: Any
    ) -> Self:
        """Return a layer over the weights of a model, which it shares."""
        layer = cls(**config, device=device)
        layer._shapes = layer._weight_shapes(tuple(input_shape))
        layer._weights, layer._is_of_model, layer.built = weights, True, True
        return layer

    # --- what a layer defines -------------------------------------------------------------------

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        """Return the shapes of the weights for inputs of this shape."""
        raise NotImplementedError

    def _initializers(self) -> Mapping[str, Initializer]:
        """Return the initializers of weights by the last part of their names."""
        raise NotImplementedError

    def _packed(self, values: dict[str, Tensor]) -> Any:
        """Return weights as the functions of ``nn`` take them."""
        raise NotImplementedError

    def _unpacked(self) -> list[Tensor]:
        """Return the weights in Keras' shapes and order."""
        raise NotImplementedError

    def _arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments besides those of ``Layer``."""
        raise NotImplementedError

    # --- what it has ----------------------------------------------------------------------------

    def build(self, input_shape: Sequence[Any] | None = None, **shapes: Sequence[Any]) -> None:
        """Create the weights for inputs of this shape, of which only the last axis counts.

        ``shapes``: instead, the shape of each argument of a call, e.g. ``query_shape``, as in
        Keras; the first one is used.

        Raises:
            InvalidArgumentError: no shape is given, or one of something else.
        """
        if unknown := [name for name in shapes if not name.endswith("_shape")]:
            raise InvalidArgumentError(
                f"build takes shapes like input_shape or query_shape, not {unknown[0]}"
            )
        if input_shape is None:
            if not shapes:
                raise InvalidArgumentError(f"build of layer {self.name} needs a shape")
            input_shape = next(iter(shapes.values()))
        if self.disposed:
            raise DisposedTensorError(f"layer {self.name} was disposed: make a new one")
        if self.built:
            return
        self._shapes = self._weight_shapes(tuple(input_shape))
        initializers = self._initializers()
        with tidy("build a layer"):
            values = {
                name: initial_values(self.device, shape, initializers[name.rpartition("/")[2]])
                for name, shape in self._shapes.items()
            }
            self._weights = keep(self._packed(values))
        self.built = True

    def get_weights(self) -> list[Tensor]:
        """Return the weights as float32 tensors, in the shapes and the order of Keras.

        Values are those that the layer computes with, rounded to its dtype.
        """
        self._check_built()
        with tidy("get_weights") as scope:
            return scope.escape(self._unpacked())

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace the weights by tensors or arrays in the shapes and the order of Keras.

        Raises:
            ShapeError: number or shapes differ.
            InvalidArgumentError: no sequence, or the layer belongs to a model.
        """
        self._check_built()
        weights = weight_list(weights)
        if self._is_of_model:
            raise InvalidArgumentError(
                f"layer {self.name} shares the weights of a model, which are replaced by loading "
                "another: make a layer from its get_config() and set_weights() there"
            )
        with tidy("set_weights"):
            values = [
                value if isinstance(value, Tensor) else tensor(value, device=self.device)
                for value in weights
            ]
            shapes = [value.shape for value in values]
            if shapes != list(self._shapes.values()):
                raise ShapeError(
                    f"layer {self.name} has weights of shapes {list(self._shapes.values())}, not "
                    f"{shapes}"
                )
            operands("set_weights", *values)
            old = self._weights
            self._weights = keep(self._packed(dict(zip(self._shapes, values, strict=True))))
        dispose(old)

    @property
    def weight_names(self) -> list[str]:
        """Names of the weights in Keras, in the order of ``get_weights``."""
        return list(self.weight_shapes)

    @property
    def weight_shapes(self) -> Shapes:
        """Shapes of the weights by their names in Keras."""
        return dict(self._shapes)

    def count_params(self) -> int:
        """Return the number of values of the weights."""
        self._check_built()
        return sum(math.prod(shape) for shape in self.weight_shapes.values())

    def dispose(self) -> None:
        """Free the weights, unless they are a model's. Idempotent."""
        if not self._is_of_model and not self.disposed:
            dispose(self._weights)
        self.disposed = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a layer with its own weights."""
        with tidy("copy of a layer"):
            copied = super().__deepcopy__(memo)
            keep(copied._weights)
        copied._is_of_model = False
        return copied

    def _check_built(self) -> None:
        if self.disposed:
            raise DisposedTensorError(f"layer {self.name} was disposed: make a new one")
        if not self.built:
            raise InvalidArgumentError(
                f"layer {self.name} has no weights yet: call it, or build(input_shape)"
            )

    def _input(self, values: Any, axes: int | None = None) -> Tensor:
        """Return an input as a float32 tensor; creates the weights if there are none."""
        x = self._operand(values, axes)
        self.build(x.shape)
        self._check_width(x)
        return x

    def _operand(self, values: Any, axes: int | None = None) -> Tensor:
        """Return an argument of a call as a float32 tensor."""
        (x,) = operands(self.name, self._on_device(values))
        if axes is not None and x.ndim != axes:
            raise ShapeError(f"layer {self.name} takes inputs of {axes} axes, not {x.shape}")
        if not x.shape:
            raise ShapeError(f"layer {self.name} takes inputs with an axis, not a number")
        return x

    def _check_width(self, x: Tensor) -> None:
        """Raise ShapeError unless the weights are those for inputs like ``x``."""
        if self._weight_shapes(x.shape) != self._shapes:
            name, shape = next(iter(self._shapes.items()))
            raise ShapeError(
                f"layer {self.name} was made for another width: its {name} is {list(shape)}, the "
                f"input {list(x.shape)}"
            )

    def _on_device(self, values: Any, dtype: str = "float32") -> Tensor:
        return values if isinstance(values, Tensor) else tensor(values, dtype, device=self.device)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype}
        return own | self._arguments()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create a layer from ``get_config``, of this package or of KerasHub."""
        return made_from(cls, config)

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.name}"
