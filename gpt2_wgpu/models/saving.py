"""Directories in Hugging Face's format, written from a model: ``save_to_preset``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2_wgpu.checkpoint_files import BESIDE_WEIGHTS, CONFIG
from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.generation_config import GENERATION_CONFIG
from gpt2_wgpu.models.gpt2_weights import OpenWeights
from gpt2_wgpu.nn import Raw
from gpt2_wgpu.nn.matrix import SOURCE_BYTES, STAGED_BYTES
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.text import GPT2Preprocessor
from gpt2_wgpu.text.tokenizer_files import checked_path
from gpt2_wgpu.text.tokenizer_saving import PREPROCESSOR
from gpt2_wgpu.webgpu import Device
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE, weights_there
from gpt2_wgpu.weights.quantized import metadata_for
from gpt2_wgpu.weights.staging import StagedDirectory
from gpt2_wgpu.weights.writer import AtomicFile, Description, SafetensorsWriter


@dataclass(frozen=True)
class StoredModel:
    """Configuration of a model, and the source of its weights on a device."""

    config: GPT2Config
    dtype: str
    device: Device
    open_weights: OpenWeights
    adapted: Path | None = None  # directory of the weights that adapters are merged into


async def save(
    model: StoredModel,
    preprocessor: GPT2Preprocessor | None,
    generation: Mapping[str, Any] | None,
    preset_dir: str | os.PathLike[str],
) -> None:
    """Write a model into a directory: ``config.json``, ``model.safetensors``, and its text's files.

    A new directory is created by one rename; in an existing one the model's files are replaced at
    the end, the text's only with a ``preprocessor``. ``generation_config.json`` is written if
    ``generation`` has values, and removed if it is empty. Weights are copied from where the model
    was loaded from, in the dtype they have there.

    Raises:
        WeightsError: the directory cannot be written, or is the one that adapters are merged into,
            or the weights' source cannot be read.
    """
    destination = Path(checked_path(preset_dir))
    if model.adapted is not None and destination.exists() and destination.samefile(model.adapted):
        raise WeightsError(
            f"{destination} holds the weights that this model's adapters are merged into whenever "
            "they are read: save into another directory"
        )
    old = weights_there(destination) if destination.is_dir() else ()
    replaced = [*old, CONFIG, SINGLE_FILE, INDEX_FILE]
    if preprocessor is not None:
        replaced += [*(name for name in BESIDE_WEIGHTS if name != GENERATION_CONFIG), PREPROCESSOR]
    if generation is not None:
        replaced.append(GENERATION_CONFIG)
    config = _config(model.config, preprocessor)
    with StagedDirectory(destination, replaced, SINGLE_FILE) as stage:
        with AtomicFile(stage.path / CONFIG) as file:
            file.write(json.dumps(config, indent=2).encode())
        if generation:  # transformers then reads start and end token from it only
            ids = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
            with AtomicFile(stage.path / GENERATION_CONFIG) as file:
                file.write(json.dumps({**generation, **ids}, indent=2).encode())
        if preprocessor is not None:
            preprocessor.save_to_preset(stage.path)
        await _write_weights(model, stage.path / SINGLE_FILE)


def _config(config: GPT2Config, preprocessor: GPT2Preprocessor | None) -> dict[str, Any]:
    """Return the values of ``config.json``; missing start and end tokens are the tokenizer's."""
    values = {"architectures": ["GPT2LMHeadModel"], **config.to_dict()}
    if preprocessor is not None:
        tokenizer = preprocessor.tokenizer
        for name, token in (
            ("bos_token_id", tokenizer.start_token_id),
            ("eos_token_id", tokenizer.end_token_id),
        ):
            values[name] = token if values[name] is None else values[name]
    return values


async def _write_weights(model: StoredModel, path: Path) -> None:
    """Write all tensors: once through for dtypes and shapes, once for the bytes."""
    device, names = model.device, list(model.config.expected_tensors())
    described = []
    with model.open_weights(device, model.dtype) as fetch:
        for name in names:
            raw = await fetch(name)
            shape = raw.shape[::-1] if raw.transposed else raw.shape
            described.append(Description(name, raw.dtype, shape))
    quantized = any(tensor.dtype == "U32" for tensor in described)
    metadata = metadata_for(model.dtype if quantized else "float32")
    with (
        model.open_weights(device, model.dtype) as fetch,
        SafetensorsWriter(path, described, metadata) as writer,
    ):
        for name in names:
            raw = await fetch(name)
            pieces = bytes_of(device, raw)
            if raw.transposed:
                data = bytearray()
                async for piece in pieces:
                    data += piece
                for row in _transposed(data, raw):
                    writer.write(row)
            else:
                async for piece in pieces:
                    writer.write(piece)


def _transposed(data: bytearray, raw: Raw) -> Iterator[bytes]:
    """Yield the rows of the transpose of ``raw``, whose bytes are ``data``."""
    width, view = raw.shape[1], memoryview(data)
    elements = view.cast("H") if SOURCE_BYTES[raw.dtype] == 2 else view.cast("I")
    return (elements[column::width].tobytes() for column in range(width))


async def bytes_of(device: Device, raw: Raw) -> AsyncIterator[memoryview]:
    """Yield the bytes of a tensor, in pieces; those made on the GPU are read back."""
    if not callable(raw.data):
        yield raw.data
        return
    item, count = SOURCE_BYTES[raw.dtype], math.prod(raw.shape)
    step = STAGED_BYTES // item
    for begin in range(0, count, step):
        end = min(begin + step, count)
        async with tidy("save"):
            words = await raw.data(begin, end)
            [piece] = await device.queue.read([(words.storage, 0, words.nbytes)])
        yield piece[: (end - begin) * item]
