"""``PreprocessingLayer``: what tokenizers, packers and preprocessors share with Keras' layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from gpt2_wgpu.weights.presets import presets as all_presets

# Arguments of Keras' layers that are in its configs and change nothing here: there are no variables
# to train, tokens are int32 or str, and Python is the only way to run.
_WITHOUT_EFFECT = {"_allow_python_workflow", "config_file", "dtype", "trainable"}


class PreprocessingLayer:
    """Base class of classes that prepare text on the host.

    ``presets``: name → description of the presets that ``from_preset`` takes.
    """

    presets: ClassVar[Mapping[str, str]] = all_presets()
    name: str

    def take_layer_arguments(self, name: str | None, others: Mapping[str, Any]) -> None:
        """Set ``name``, by default the class's in snake case; accept other arguments of a layer.

        Raises:
            TypeError: an argument is not one of a Keras layer.
        """
        kind = type(self).__name__
        if unknown := sorted(others.keys() - _WITHOUT_EFFECT):
            raise TypeError(f"{kind}() got an unexpected keyword argument {unknown[0]!r}")
        words = re.findall(r"[A-Z0-9]+(?![a-z])|[A-Z][a-z0-9]*", kind)
        self.name = "_".join(words).lower() if name is None else name


def inner_config(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config, or that of a serialised Keras object, ``{"class_name", "config"}``."""
    inner = given.get("config") if "class_name" in given else given
    return inner if isinstance(inner, Mapping) else given
