"""Initial values of weights, by Keras' names of initializers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import count
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.nn import random_normal
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.tensors.ops.operands import full
from gpt2_wgpu.webgpu import Device

Initializer = Any  # a name, a standard deviation, or Keras' serialised form
_CONSTANTS = {"zeros": 0.0, "ones": 1.0}
_FANS = {"glorot": ("both", 2.0), "he": ("in", 2.0), "lecun": ("in", 1.0)}
_PLAIN = {"uniform": 0.05 / math.sqrt(3), "normal": 0.05}  # Keras' RandomUniform, RandomNormal
_streams = count()  # so that no two weights are alike


def initial_values(device: Device, shape: tuple[int, ...], initializer: Initializer) -> Tensor:
    """Return float32 values for a weight.

    Random values follow a normal distribution with the variance of the initializer, also of a
    uniform one.
    """
    name, stddev = _parsed(initializer)
    if name in _CONSTANTS:
        return full(device, shape, _CONSTANTS[name])
    if stddev is None:
        fan_in = math.prod(shape[:-1]) if len(shape) < 3 else shape[0]
        fans, factor = _FANS[name]
        fan = fan_in if fans == "in" else fan_in + math.prod(shape) // max(1, fan_in)
        stddev = math.sqrt(factor / max(1, fan))
    values = random_normal(device, math.prod(shape), stddev, 0, next(_streams))
    result = values.view(shape)
    values.dispose()
    return result


def check_initializer(initializer: Initializer) -> Initializer:
    """Return ``initializer``; InvalidArgumentError if it is unknown."""
    _parsed(initializer)
    return initializer


def _parsed(initializer: Initializer) -> tuple[str, float | None]:
    """Return the name, and the standard deviation if it does not follow from the shape."""
    if isinstance(initializer, int | float) and not isinstance(initializer, bool):
        return "normal", float(initializer)
    given = initializer
    config: Mapping[str, Any] = {}
    if isinstance(given, Mapping):
        config = given.get("config") or {}
        given = given.get("class_name")
    name = str(given).replace("_", "").lower()
    if name in _CONSTANTS:
        return name, None
    for family in _FANS:
        if name in (f"{family}normal", f"{family}uniform"):
            return family, None
    plain = name.removeprefix("random").removeprefix("truncated")
    if plain in _PLAIN:
        return plain, float(config.get("stddev", _PLAIN[plain]))
    raise InvalidArgumentError(
        f"no initializer is called {shown(initializer)}: use 'zeros', 'ones', 'glorot_uniform', "
        "'he_normal', 'lecun_normal', 'random_normal' or a standard deviation"
    )
