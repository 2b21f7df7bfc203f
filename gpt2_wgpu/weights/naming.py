"""Mapping of tensor names in a checkpoint to names of the model.

Model names are Hugging Face's for GPT-2 without the prefix ``transformer.``, e.g.
``h.0.attn.c_attn.weight``. Checkpoints have names with or without this prefix and with prefixes of
training wrappers; older ones contain each layer's causal mask as a tensor. nanoGPT's matrices have
the layout of ``nn.Linear``, the transpose of transformers' ``Conv1D``.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.weights.checkpoint import WeightSource
from gpt2_wgpu.weights.header import TensorEntry

PREFIX = "transformer."
HEAD, EMBEDDING = "lm_head.weight", "wte.weight"
SUPPORTED_DTYPES = ("F32", "F16", "BF16")
_MASKS = (".attn.bias", ".attn.masked_bias")
# Name components of module wrappers: torch.compile, (distributed) data parallelism, FSDP,
# activation checkpointing, DeepSpeed and Lightning.
_WRAPPERS = {
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
}
_OUTER = ("model", "transformer")  # a training module's attribute, and transformers' own
# Suffixes of names in unsupported kinds of checkpoints.
_OTHER_KINDS = (
    (
        (".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight", ".lora_embedding_A"),
        "a LoRA adapter: merge it into its base model with PEFT's merge_and_unload(), then "
        "save_pretrained()",
    ),
    (
        (".scales", ".qweight", ".qzeros", ".absmax", ".SCB"),
        "weights quantised by another library (MLX, GPTQ, AWQ or bitsandbytes): take the "
        "checkpoint they were made from",
    ),
    (
        (".kernel", "/kernel", "/embeddings", "kernel:0"),
        "weights in Flax's or Keras' names: convert them with transformers' "
        "from_pretrained(..., from_flax=True) or from_tf=True and save_pretrained()",
    ),
)


def resolve(
    source: WeightSource,
    expected: Mapping[str, tuple[int, ...]],
    quantized: Container[str] = (),
) -> dict[str, TensorEntry]:
    """Find every expected tensor in a source and check its shape and dtype.

    Args:
        source: the checkpoint.
        expected: model name → shape. Without ``lm_head.weight`` the head is tied to
            ``wte.weight``, and either tensor serves as both.
        quantized: names of the tensors that must be U32 (weights/quantized.py).

    Returns:
        Model name → entry, in the order of ``expected``. ``entry.name`` is the name to `read`;
        ``entry.transposed`` marks matrices in the layout of ``nn.Linear``. Biases are omitted if
        the checkpoint has none at all (nanoGPT's ``bias=False``): they are zero.

    Raises:
        WeightsError: tensors are missing or have another shape (up to five are listed), a dtype
            is not F32, F16 or BF16 (U32 if quantised), or a tensor exists under two unusual
            names.

    Warns:
        UserWarning: the source contains tensors that the model does not use, or contradictions.
    """
    found, doubled = by_model_name(source)
    if HEAD not in expected and EMBEDDING not in found and HEAD in found:
        found[EMBEDDING] = found.pop(HEAD)
    expected = _without_absent_biases(found, expected)
    found = _marked_transposed(found, expected)
    _require_all(source, expected, found)
    _require_dtypes(source, expected, found, quantized)
    for disagreement in (*source.disagreements, *doubled):
        warnings.warn(disagreement, stacklevel=2)
    if extras := unused(found, expected):
        warnings.warn(
            f"{source.where}: {len(extras)} tensor{'s are' if len(extras) > 1 else ' is'} not used "
            f"by this model: "
            f"{listed(extras)}; if text comes out wrong, config.json may be of another model",
            stacklevel=2,
        )
    return {name: found[name] for name in expected}


def unused(found: Iterable[str], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the model names that are neither expected nor redundant.

    Redundant are the mask buffers ``attn.bias`` and ``attn.masked_bias`` and a tied head.
    """
    return [
        name
        for name in found
        if name not in expected and name != HEAD and not name.endswith(_MASKS)
    ]


def by_model_name(source: WeightSource) -> tuple[dict[str, TensorEntry], list[str]]:
    """Return model name → entry for all tensors, and a sentence for each tensor with two names.

    Of two names of one tensor, transformers' own is read, as in transformers.

    Raises:
        WeightsError: a tensor exists under two other names.
    """
    found: dict[str, TensorEntry] = {}
    doubled = []
    for name in source.names():
        entry = source.entry(name)
        plain = _model_name(name)
        other = found.setdefault(plain, entry)
        if other is entry:
            continue
        usual = plain if plain == HEAD else PREFIX + plain
        if usual not in (name, other.name):
            raise WeightsError(
                f"{source.where}: both {shown(other.name)} and {shown(name)} are there, and they "
                "mean the same tensor; remove one"
            )
        if name == usual:
            found[plain], entry = entry, other
        doubled.append(
            f"{source.where}: {shown(usual)} is read, and {shown(entry.name)}, which means the "
            "same tensor, is not"
        )
    return found, doubled


def _model_name(name: str) -> str:
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    for outer in _OUTER:
        if parts[:1] == [outer]:
            parts = parts[1:]
    return ".".join(parts)


def _without_absent_biases(
    found: Container[str], expected: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """Return ``expected`` without biases if all biases, and only biases, are missing."""
    others = {name: shape for name, shape in expected.items() if not name.endswith(".bias")}
    there = [name for name in expected if name in found]
    return others if there == list(others) else expected


def _marked_transposed(
    found: dict[str, TensorEntry], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, TensorEntry]:
    """Return ``found`` with the layers' matrices marked if stored as [out_features, in_features].

    The matrices that are not square decide for those that are: c_attn never is.
    """
    matrices = [
        name
        for name, shape in expected.items()
        if len(shape) == 2 and name.startswith("h.") and name in found
    ]
    telling = [name for name in matrices if expected[name][0] != expected[name][1]]
    if not telling or any(found[name].shape != expected[name][::-1] for name in telling):
        return found
    return found | {name: replace(found[name], transposed=True) for name in matrices}


def _require_all(
    source: WeightSource,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, TensorEntry],
) -> None:
    faults = []
    for name, shape in expected.items():
        if name not in found:
            faults.append(f"{name} {list(shape)} is missing")
        elif found[name].shape != (shape[::-1] if found[name].transposed else shape):
            faults.append(f"{name} is {shown(list(found[name].shape))} instead of {list(shape)}")
    if not faults:
        return
    names = [entry.name for entry in found.values()]
    if kind := _other_kind(names):
        raise WeightsError(f"{source.where}: these are {kind}")
    if not any(name in found for name in expected):
        raise WeightsError(
            f"{source.where}: none of GPT-2's {len(expected)} tensors are here, but "
            f"{listed(names) or 'nothing'}; {_unknown_prefix(names)}"
        )
    raise WeightsError(
        f"{source.where}: {len(faults)} of {len(expected)} tensors do not fit config.json: "
        f"{listed(faults)}; config.json is probably of another model, or the download incomplete"
    )


def _other_kind(names: list[str]) -> str | None:
    for ends, kind in _OTHER_KINDS:
        if any(name.endswith(ends) for name in names):
            return kind
    return None


def _unknown_prefix(names: list[str]) -> str:
    for name in names:
        if name.endswith(f".{EMBEDDING}"):
            prefix = shown(name.removesuffix(EMBEDDING))
            return f"the prefix {prefix} is unknown: remove it from the names in the file"
    return "this is a checkpoint of another architecture"


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
