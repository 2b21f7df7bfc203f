"""LoRA adapters in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors``.

An adapter adds ``scale * B A`` to some matrices W [out_features, in_features] of a model, with A
[r, in_features] and B [out_features, r] (Hu et al. 2021). ``scale`` is alpha / r, or alpha /
sqrt(r) with ``use_rslora`` (Kalajdzievski 2023); r and alpha may differ between modules.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2_wgpu import strict_json
from gpt2_wgpu.checkpoint_files import ADAPTER_CONFIG as CONFIG_FILE
from gpt2_wgpu.checkpoint_files import ADAPTER_WEIGHTS as WEIGHTS_FILE
from gpt2_wgpu.errors import InvalidArgumentError, WeightsError
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.weights.blobs import Blob, read_blob, read_range
from gpt2_wgpu.weights.checkpoint import BlobRange, parsed_file
from gpt2_wgpu.weights.closing import Closing
from gpt2_wgpu.weights.header import TensorEntry, header_length, parse_header
from gpt2_wgpu.weights.naming import SUPPORTED_DTYPES
from gpt2_wgpu.weights.safetensors import SafetensorsFile

Blobs = Mapping[str, Blob]  # file name -> blob
AdapterName = str | os.PathLike[str] | Blobs
Adapters = AdapterName | Sequence[AdapterName] | Mapping[str, float]  # Mapping: name -> weight

_NAME = re.compile(
    r"(?:base_model\.model\.)?((?:transformer\.)?(.+))\.lora_([AB])(?:\.[^.]+)?\.weight"
)
# Keys of rank_pattern and alpha_pattern are regular expressions. Those of another's file are only
# run if their time is linear: names, each with at most one \d+.
_TEXT = r"(?:[\w.-]|\\\.)*"
_KEY = re.compile(rf"\^?{_TEXT}(?:\\d\+{_TEXT})?(?:\|\^?{_TEXT}(?:\\d\+{_TEXT})?)*")
_MATRICES = re.compile(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)")


@dataclass(frozen=True)
class LoraModule:
    """Matrices of an adapter for one matrix of the model."""

    a: TensorEntry  # [r, in_features]
    b: TensorEntry  # [out_features, r]
    scale: float


class AdapterBytes:
    """Files of an adapter in memory: those of browsers; created by ``await read(...)``."""

    def __init__(self, where: str, config: bytes, weights: bytes) -> None:
        self.where, self.config = where, config
        self._weights = memoryview(weights)
        file = f"{where}/{WEIGHTS_FILE}"
        header_length(weights[:8], len(weights), file)
        self.tensors = parse_header(self._weights, len(weights), file).tensors

    @classmethod
    async def of_blobs(cls, blobs: Blobs, where: str) -> AdapterBytes:
        """Read the blobs of an adapter.

        Raises:
            WeightsError: a file is missing or malformed.
        """
        if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if name not in blobs]:
            raise WeightsError(f"{where} has no {missing[0]}, so it is no adapter of PEFT")
        config = await read_blob(blobs[CONFIG_FILE], f"{where}/{CONFIG_FILE}")
        weights = blobs[WEIGHTS_FILE]
        return cls(where, config, await read_range(BlobRange(weights, 0, weights.size)))

    def read(self, name: str) -> memoryview:
        """Return a tensor's bytes."""
        entry = self.tensors[name]
        return self._weights[entry.begin : entry.end]

    def close(self) -> None:
        """Do nothing: the bytes are read again after a device loss."""


class LoraAdapter(Closing):
    """An open adapter: ``modules``, by name of the model's matrix, and their bytes.

    Raises:
        WeightsError: the adapter is missing, malformed or of a kind that is not supported.
    """

    def __init__(self, source: str | os.PathLike[str] | AdapterBytes, weight: float = 1.0) -> None:
        self._file: AdapterBytes | SafetensorsFile
        if isinstance(source, AdapterBytes):
            self.where = source.where
            config = _parsed(source.config, f"{self.where}/{CONFIG_FILE}")
            self._file = source
        else:
            directory = Path(source)
            self.where = str(directory)
            config = _config(directory)
            self._file = SafetensorsFile(directory / WEIGHTS_FILE)
        try:
            self.modules = _modules(config, self._file.tensors, self.where, weight)
        except WeightsError:
            self.close()
            raise

    def read(self, entry: TensorEntry) -> memoryview:
        """Return the bytes of a matrix."""
        return self._file.read(entry.name)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check names and shapes against the model's matrices [in_features, out_features].

        Raises:
            WeightsError: the model lacks a module, or has another size.
        """
        unknown = [name for name in self.modules if name not in shapes]
        if unknown:
            raise WeightsError(
                f"{self.where}: the model has no {listed(unknown, 3)}: the adapter belongs to "
                "another model"
            )
        for name, module in self.modules.items():
            fitting = (module.a.shape[-1], module.b.shape[0])
            if shapes[name] != fitting:
                raise WeightsError(
                    f"{self.where}: {name} is for {list(fitting)}, but the model has "
                    f"{list(shapes[name])}: the adapter belongs to another model"
                )

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def weighted(adapters: Adapters | None) -> list[tuple[AdapterName, float]]:
    """Return name, or blobs, and weight of each adapter.

    Raises:
        InvalidArgumentError: they are neither one adapter, a list, nor a dict with weights.
    """
    if adapters is None:
        return []
    if _is_one(adapters):
        return [(adapters, 1.0)]  # type: ignore[list-item]
    if not isinstance(adapters, Mapping | list | tuple):
        raise InvalidArgumentError(
            "adapter must be a directory or hub id, a list of them or a dict name → weight, not "
            f"{shown(adapters)}"
        )
    pairs: Any = adapters.items() if isinstance(adapters, Mapping) else [(a, 1) for a in adapters]
    for name, weight in pairs:
        is_number = isinstance(weight, int | float) and math.isfinite(weight)
        if not _is_one(name) or not is_number:
            raise InvalidArgumentError(
                f"adapter maps {shown(name)} to {shown(weight)}; a directory or hub id and a "
                "finite number are needed"
            )
    return [(name, float(weight)) for name, weight in pairs]


def _is_one(adapter: object) -> bool:
    blobs = isinstance(adapter, Mapping) and CONFIG_FILE in adapter
    is_name = isinstance(adapter, str | os.PathLike) and bool(os.fspath(adapter))
    return blobs or is_name


def _config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    if not path.exists():
        raise WeightsError(
            f"{path} does not exist: an adapter is a directory that PEFT's save_pretrained() wrote"
        )
    return parsed_file(path, _parsed)


def _parsed(text: bytes, path: str) -> dict[str, Any]:
    """Return the values of the config at ``path``."""
    try:
        config = strict_json.parse(text)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise WeightsError(f"{path}: peft_type must be 'LORA', not {shown(kind)}")
    if config.get("use_dora"):
        raise WeightsError(f"{path}: use_dora is not supported: {_MERGE}")
    if config.get("bias", "none") != "none":
        raise WeightsError(f"{path}: bias {shown(config['bias'])} is not supported: {_MERGE}")
    if config.get("modules_to_save"):
        modules = shown(config["modules_to_save"])
        raise WeightsError(f"{path}: modules_to_save {modules} are not supported: {_MERGE}")
    return config


_MERGE = "merge the adapter with PEFT's merge_and_unload(), then save_pretrained()"


def _modules(
    config: Mapping[str, Any], tensors: Mapping[str, TensorEntry], where: str, weight: float
) -> dict[str, LoraModule]:
    """Return the pairs of matrices by name of the model's matrix."""
    halves: dict[str, dict[str, TensorEntry]] = {}
    names = {}
    for entry in tensors.values():
        found = _NAME.fullmatch(entry.name)
        if found is None or not _MATRICES.fullmatch(found[2]):
            raise WeightsError(
                f"{where}: tensor {shown(entry.name)} is not lora_A or lora_B of c_attn, c_proj or "
                f"c_fc of a block, the modules that are supported: {_MERGE}"
            )
        if entry.dtype not in SUPPORTED_DTYPES or len(entry.shape) != 2:
            raise WeightsError(
                f"{where}: tensor {shown(entry.name)} is {entry.dtype} {list(entry.shape)}, not a "
                f"matrix in {', '.join(SUPPORTED_DTYPES)}"
            )
        halves.setdefault(found[2], {})[found[3]] = entry
        names[found[2]] = found[1]
    if not halves:
        raise WeightsError(f"{where}: {WEIGHTS_FILE} holds no tensors")
    modules = {}
    for module, pair in halves.items():
        if len(pair) != 2:
            raise WeightsError(f"{where}: {module} has lora_{next(iter(pair))} only")
        rank = _of_module(config, "rank_pattern", "r", names[module], where)
        alpha = _of_module(config, "alpha_pattern", "lora_alpha", names[module], where)
        a, b = pair["A"], pair["B"]
        if a.shape[0] != rank or b.shape[1] != rank:
            raise WeightsError(
                f"{where}: {module} has lora_A {list(a.shape)} and lora_B {list(b.shape)} for a "
                f"rank of {shown(rank)} in {CONFIG_FILE}"
            )
        divisor = math.sqrt(rank) if config.get("use_rslora") else rank
        modules[f"{module}.weight"] = LoraModule(a, b, weight * alpha / divisor)
    return modules


def _of_module(
    config: Mapping[str, Any], pattern: str, default: str, module: str, where: str
) -> float:
    """Return the rank or alpha of a module: of the first matching pattern, else the default."""
    patterns = config.get(pattern) or {}
    if not isinstance(patterns, dict):
        raise WeightsError(
            f"{where}/{CONFIG_FILE}: {pattern} must be an object, not {shown(patterns)}"
        )
    if bad := next((key for key in patterns if not _KEY.fullmatch(key)), None):
        raise WeightsError(
            f"{where}/{CONFIG_FILE}: {pattern} has the key {shown(bad)}; supported are names of "
            r"modules, with one \d+ for a number, and | between names"
        )
    value = config.get(default)
    for key, special in patterns.items():
        if re.fullmatch(rf"(?:.*\.)?(?:{key})", module):
            value = special
            break
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise WeightsError(
            f"{where}/{CONFIG_FILE}: {default} of {module} must be a positive number, not "
            f"{shown(value)}"
        )
    return value
