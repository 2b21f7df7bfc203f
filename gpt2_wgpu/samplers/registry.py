"""Samplers by name and by configuration: KerasHub's ``get``, ``serialize`` and ``deserialize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.samplers.sampler import Sampler
from gpt2_wgpu.shown import shown

SHORT_NAMES: dict[str, type[Sampler]] = {}  # both are filled by the package's __init__.py
CLASS_NAMES: dict[str, type[Sampler]] = {}


def get(identifier: str | dict[str, Any] | Sampler) -> Sampler:
    """Return a sampler, given its name, ``{"class_name", "config"}`` or the sampler itself.

    Raises:
        InvalidArgumentError: anything else (KerasHub returns an unknown name unchanged).
    """
    if isinstance(identifier, Sampler):
        return identifier
    if isinstance(identifier, str) and identifier in SHORT_NAMES:
        return SHORT_NAMES[identifier]()
    if isinstance(identifier, dict):
        kinds = SHORT_NAMES | CLASS_NAMES
        name = identifier.get("class_name")
        if isinstance(name, str) and name in kinds:
            config = identifier.get("config")
            return kinds[name].from_config({} if config is None else config)
    raise InvalidArgumentError(
        f"unknown sampler {shown(identifier)}: use one of {', '.join(map(repr, SHORT_NAMES))} or a "
        "Sampler"
    )


def serialize(sampler: Sampler) -> dict[str, Any]:
    """Return ``{"class_name", "config"}``, which `get` accepts (for this package's samplers)."""
    config = sampler.get_config()
    if isinstance(biases := config.get("sequence_bias"), Mapping):  # JSON has no tuples as keys
        config["sequence_bias"] = [[list(ids), bias] for ids, bias in biases.items()]
    return {"class_name": type(sampler).__name__, "config": config}


def deserialize(config: dict[str, Any]) -> Sampler:
    """Return the sampler of a result of `serialize`.

    Raises:
        InvalidArgumentError: ``config`` describes no sampler of this package.
    """
    return get(config)
