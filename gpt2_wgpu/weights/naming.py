"""From the names in a checkpoint to the names of the model.

The model's names are Hugging Face's for GPT-2 without the prefix ``transformer.``, for example
``h.0.attn.c_attn.weight``. Files come with or without that prefix, and older ones carry each
layer's causal mask as a tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Mapping

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.checkpoint import WeightSource
from gpt2_wgpu.weights.header import TensorEntry

PREFIX = "transformer."
SUPPORTED_DTYPES = ("F32", "F16", "BF16")
_HEAD = "lm_head.weight"
_MASKS = (".attn.bias", ".attn.masked_bias")
_NAMED_IN_MESSAGES = 5


def resolve(
    source: WeightSource,
    expected: Mapping[str, tuple[int, ...]],
    quantized: Container[str] = (),
) -> dict[str, TensorEntry]:
    """Find every expected tensor in a source and check its shape and dtype.

    Args:
        source: the checkpoint.
        expected: model name → shape. If ``lm_head.weight`` is not among them the head is tied to
            ``wte.weight``, and a stored copy of it is ignored (transformers overwrites it too).
        quantized: names of the tensors that must be U32 (weights/quantized.py).

    Returns:
        Model name → entry, in the order of ``expected``. ``entry.name`` is the name to `read`.

    Raises:
        WeightsError: tensors are missing or have another shape (up to five are listed), a dtype
            is not F32, F16 or BF16 (U32 if quantised), or a tensor is there both with and
            without the prefix.

    Warns:
        UserWarning: the source holds tensors that the model does not use.
    """
    found = _by_model_name(source)
    _require_all(source, expected, found)
    _require_dtypes(source, expected, found, quantized)
    if extras := unused(found, expected):
        warnings.warn(
            f"{source.where}: {len(extras)} tensor{'s are' if len(extras) > 1 else ' is'} not used "
            f"by this model: "
            f"{_listed(extras)}; if text comes out wrong, config.json may be of another model",
            stacklevel=2,
        )
    return {name: found[name] for name in expected}


def unused(found: Iterable[str], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the model names that are neither expected nor known to be dispensable.

    Dispensable are the mask buffers ``attn.bias`` and ``attn.masked_bias`` and a tied head.
    """
    return [
        name
        for name in found
        if name not in expected and name != _HEAD and not name.endswith(_MASKS)
    ]


def _by_model_name(source: WeightSource) -> dict[str, TensorEntry]:
    found: dict[str, TensorEntry] = {}
    for name in source.names():
        entry = source.entry(name)
        other = found.setdefault(name.removeprefix(PREFIX), entry)
        if other is not entry:
            raise WeightsError(
                f"{source.where}: both {shown(other.name)} and {shown(name)} are there, and they "
                "mean the same tensor; remove one"
            )
    return found


def _require_all(
    source: WeightSource,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, TensorEntry],
) -> None:
    faults = []
    for name, shape in expected.items():
        if name not in found:
            faults.append(f"{name} {list(shape)} is missing")
        elif found[name].shape != shape:
            faults.append(f"{name} is {list(found[name].shape)} instead of {list(shape)}")
    if not faults:
        return
    if not any(name in found for name in expected):
        raise WeightsError(
            f"{source.where}: none of GPT-2's {len(expected)} tensors are here, but "
            f"{_listed(list(found)) or 'nothing'}; this is a checkpoint of another architecture"
        )
    raise WeightsError(
        f"{source.where}: {len(faults)} of {len(expected)} tensors do not fit config.json: "
        f"{_listed(faults)}; config.json is probably of another model, or the download incomplete"
    )


def _require_dtypes(
    source: WeightSource,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, TensorEntry],
    quantized: Container[str],
) -> None:
    for name in expected:
        supported = ("U32",) if name in quantized else SUPPORTED_DTYPES
        if found[name].dtype not in supported:
            raise WeightsError(
                f"{source.where}: tensor {shown(found[name].name)} has dtype {found[name].dtype}; "
                f"supported are {', '.join(supported)}, so save the model in one of these"
            )


def _listed(items: list[str]) -> str:
    more = f", ... ({len(items) - _NAMED_IN_MESSAGES} more)"
    shown = ", ".join(items[:_NAMED_IN_MESSAGES])
    return shown + more if len(items) > _NAMED_IN_MESSAGES else shown
