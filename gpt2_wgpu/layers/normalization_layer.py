"""Layer normalization, as a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.layers.initializers import Initializer
from gpt2_wgpu.layers.layer import Layer, Shapes
from gpt2_wgpu.layers.masks import attach_mask, attached_mask
from gpt2_wgpu.layers.packed_weights import (
    pack_vector,
    pad_last_axis,
    padded_axis,
    unpack_vector,
)
from gpt2_wgpu.nn import LayerNorm
from gpt2_wgpu.tensors import Tensor, ops, tidy


class LayerNormalization(Layer):
    """Layer normalization over the last axis; ``epsilon`` is added to the variance."""

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def __call__(self, inputs: Any) -> Tensor:
        """Return ``inputs`` [..., D] with mean 0 and variance 1, times gamma plus beta.

        A mask attached to ``inputs`` is attached to the result.
        """
        with tidy(self.name) as scope:
            x = self._input(inputs)
            width = x.shape[-1]
            found = normalize(pad_last_axis(x), self._weights, self.epsilon, width)
            return scope.escape(attach_mask(found, attached_mask(inputs)))

    def _weight_shapes(self, input_shape: tuple[Any, ...]) -> Shapes:
        return {"gamma": (input_shape[-1],), "beta": (input_shape[-1],)}

    def _initializers(self) -> Mapping[str, Initializer]:
        return {"gamma": "ones", "beta": "zeros"}

    def _packed(self, values: dict[str, Tensor]) -> Any:
        return pack_norm(values["gamma"], values["beta"])

    def _unpacked(self) -> list[Tensor]:
        return unpack_norm(self._weights, self._shapes["gamma"][0])

    def _arguments(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon}


def pack_norm(gamma: Tensor, beta: Tensor) -> LayerNorm:
    """Store the weights of a LayerNorm."""
    axis = padded_axis(gamma.size)
    return LayerNorm(pack_vector(gamma, axis), pack_vector(beta, axis))


def unpack_norm(norm: LayerNorm, width: int) -> list[Tensor]:
    """Return gamma and beta."""
    axis = padded_axis(width)
    return [unpack_vector(norm.weight, axis), unpack_vector(norm.bias, axis)]


def normalize(x: Tensor, norm: LayerNorm, epsilon: float, width: int) -> Tensor:
    """Return the normalized ``x`` [..., D padded] without padding, [..., D]."""
    found = ops.layer_norm(x, norm.weight, norm.bias, epsilon, columns=width)
    return found[..., :width]
