"""Initial values of weights, by Keras' names of initializers or by functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.nn import random_normal
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, tensor
from gpt2_wgpu.tensors.ops.operands import full, operands
from gpt2_wgpu.webgpu import Device

# A name, a standard deviation, Keras' serialised form, a function of shape and dtype, or one of
# Keras' initializers, which are such functions.
Initializer = Any
_CONSTANTS = {"zeros": 0.0, "ones": 1.0}
_FANS = {"glorot": ("both", 2.0), "he": ("in", 2.0), "lecun": ("in", 1.0)}
_PLAIN = {"uniform": 0.05 / math.sqrt(3), "normal": 0.05}  # Keras' RandomUniform, RandomNormal
_streams = count()  # so that no two weights are alike


def initial_values(device: Device, shape: tuple[int, ...], initializer: Initializer) -> Tensor:
    """Return float32 values for a weight.

    Random values follow a normal distribution with the variance of the initializer, also of a
    uniform one. A function is called as Keras does it, ``initializer(shape, dtype="float32")``;
    one of Keras' initializers is copied first, so that weights of one shape get different values.
    ShapeError if it returns another shape.
    """
    if callable(initializer):
        return _called(device, shape, initializer)
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


def _called(device: Device, shape: tuple[int, ...], initializer: Callable[..., Any]) -> Tensor:
    """Return what a function gives for a weight."""
    if _is_configurable(initializer):
        kind: Any = type(initializer)
        initializer = kind.from_config(kind.get_config(initializer))
    given = initializer(shape, dtype="float32")
    values = given if isinstance(given, Tensor) else tensor(given, device=device)
    if values.shape != shape:
        raise ShapeError(
            f"initializer {shown(initializer)} returned the shape {values.shape} for a weight "
            f"{shape}"
        )
    operands("initializer", values)
    return values


def _is_configurable(initializer: Initializer) -> bool:
    return hasattr(initializer, "get_config") and hasattr(type(initializer), "from_config")


def initializer_config(initializer: Initializer) -> Any:
    """Return an initializer as in configurations: those of Keras serialised, a function itself."""
    if not callable(initializer) or not _is_configurable(initializer):
        return initializer
    kind: Any = type(initializer)
    return {"class_name": kind.__name__, "config": kind.get_config(initializer)}


def check_initializer(initializer: Initializer) -> Initializer:
    """Return ``initializer``; InvalidArgumentError if it is unknown."""
    if not callable(initializer):
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
        return plain, _stddev(plain, config)
    raise InvalidArgumentError(
        f"no initializer is called {shown(initializer)}: use 'zeros', 'ones', 'glorot_uniform', "
        "'he_normal', 'lecun_normal', 'random_normal', a standard deviation or a function"
    )


def _stddev(plain: str, config: Mapping[str, Any]) -> float:
    """Return the standard deviation of a serialised initializer; its mean must be 0."""
    mean, stddev = config.get("mean", 0.0), config.get("stddev", _PLAIN[plain])
    if plain == "uniform" and {"minval", "maxval"} <= config.keys():
        low, high = config["minval"], config["maxval"]
        mean, stddev = (low + high) / 2, (high - low) / math.sqrt(12)
    if mean:
        raise InvalidArgumentError(
            f"an initializer's mean must be 0, not {shown(mean)}: pass a function instead"
        )
    return float(stddev)
