"""``load_model``: Keras' function for the ``.keras`` files that ``save`` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_causal_lm import GPT2CausalLM
from gpt2_wgpu.models.gpt2_weights import Progress
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import dtype_of_policy
from gpt2_wgpu.webgpu import Device, sync
from gpt2_wgpu.weights.keras_archive import BACKBONE, SUFFIX, KerasArchive, SavedModel, keras_file

# Keras' dtype policy of a model → weight dtype; others have the default of `from_preset`.
_DTYPES = {
    "float32": "float32",
    "mixed_float16": "float32",
    "mixed_bfloat16": "float32",
    "bfloat16": "float32",
    "float16": "float16",
}


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    dtype: str | None = None,
    device: Device | None = None,
    on_progress: Progress | None = None,
    cache_dtype: str | None = None,
) -> GPT2CausalLM | GPT2Backbone:
    """Load a ``.keras`` file of KerasHub or of :meth:`GPT2CausalLM.save`; blocks.

    The configuration is read as data: no code of the file is run. Needs
    ``pip install 'gpt2-wgpu[keras]'``; in a browser see ``GPT2CausalLM.from_preset``.

    Args:
        filepath: path of the file.
        custom_objects: Keras' argument for classes of your own, which are not supported: None.
        compile: Keras' argument, without effect: optimizer and loss are not used here.
        safe_mode: likewise; files are always read as in the safe mode.
        dtype: weight dtype; None: that of the file. Keras' bfloat16 becomes float32.
        device: default: the default device.
        on_progress: as in ``GPT2CausalLM.from_preset``.
        cache_dtype: likewise.

    Returns:
        The ``GPT2CausalLM``, with its preprocessor if it was saved with one, or the
        ``GPT2Backbone``, with names and dropout as saved.

    Raises:
        InvalidArgumentError: there are custom objects, or the file has another suffix.
        PresetError: there is no such file.
        ConfigError, WeightsError, TokenizerError: the file is malformed, or holds another model.
    """
    loading = load_model_async(
        filepath, custom_objects, compile, safe_mode, dtype=dtype, device=device,
        on_progress=on_progress, cache_dtype=cache_dtype,
    )  # fmt: skip
    return sync(loading, "load_model_async(...)")


async def load_model_async(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
    *,
    dtype: str | None = None,
    device: Device | None = None,
    on_progress: Progress | None = None,
    cache_dtype: str | None = None,
) -> GPT2CausalLM | GPT2Backbone:
    """Async counterpart of :func:`load_model`."""
    if custom_objects:
        raise InvalidArgumentError(
            f"custom_objects must be None, not {shown(custom_objects)}: only KerasHub's own "
            "GPT2CausalLM and GPT2Backbone can be loaded"
        )
    path = keras_file(filepath)
    if path is None:
        raise InvalidArgumentError(
            f"load_model reads existing files with the suffix {SUFFIX}, not {shown(filepath)}; "
            "from_preset reads directories"
        )
    with KerasArchive(path) as archive:
        saved = archive.saved()
    arguments: dict[str, Any] = {
        "dtype": dtype or _dtype(saved),
        "device": device,
        "on_progress": on_progress,
        "cache_dtype": cache_dtype,
    }
    if saved.class_name == BACKBONE:
        backbone = await GPT2Backbone.from_preset_async(path, **arguments)
        _restore(backbone, saved)
        return backbone
    preprocessor = None if saved.preprocessor is None else "auto"
    lm = await GPT2CausalLM.from_preset_async(path, preprocessor, **arguments)
    _restore(lm.backbone, saved)
    lm.name = _text(saved.config.get("name")) or lm.name
    return lm


def _restore(backbone: GPT2Backbone, saved: SavedModel) -> None:
    """Set what a checkpoint has not: name and dropout."""
    config = saved.backbone["config"]
    backbone.name = _text(config.get("name")) or backbone.name
    if type(dropout := config.get("dropout")) in (int, float):
        backbone.dropout = dropout


def _dtype(saved: SavedModel) -> str | None:
    """Return the weight dtype of a model, of its serialised policy or its name."""
    policy = dtype_of_policy(saved.backbone["config"].get("dtype"))
    return _DTYPES.get(policy) if isinstance(policy, str) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
