"""Conversion of a checkpoint's matrices to another dtype: ``gpt2-wgpu convert``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gpt2_wgpu.checkpoint_files import BESIDE_WEIGHTS
from gpt2_wgpu.errors import InvalidArgumentError, WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.gpt2_weights import Progress, with_stored_head
from gpt2_wgpu.models.weight_sizes import Layout, layouts, quantized_shapes
from gpt2_wgpu.nn import Axis, Raw, load_matrix
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.validation import optional_function
from gpt2_wgpu.webgpu import Device, checked_device, default_device_async, sync
from gpt2_wgpu.weight_formats import QUANTIZED, WEIGHT_FORMATS, check_weight_format
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint, weights_there
from gpt2_wgpu.weights.header import TensorEntry
from gpt2_wgpu.weights.naming import resolve
from gpt2_wgpu.weights.presets import resolve as resolve_preset
from gpt2_wgpu.weights.quantized import metadata_for, quantization_of
from gpt2_wgpu.weights.staging import StagedDirectory
from gpt2_wgpu.weights.writer import AtomicFile, Description, SafetensorsWriter

_MODEL_FILES = (*BESIDE_WEIGHTS, SINGLE_FILE, INDEX_FILE)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    dtype: str,
    *,
    device: Device | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
) -> Path:
    """Convert a model's matrices to another dtype; blocks (async: ``convert_async``).

    Matrices are converted on the GPU by the kernels that load a model, so that loading the result
    gives the same bits. Vectors and position embeddings are unchanged; configuration and tokenizer
    are copied. A new directory is created atomically, by one rename; in an existing one the
    model's files, including old shards, are replaced at the end. After a failure the old files are
    unchanged, or the message has their location.

    Args:
        source: as in ``from_preset``.
        destination: a directory.
        dtype: "float32", "float16" or a quantised format, e.g. "q8".
        device: default: the default device.
        force: whether to replace existing files.
        on_progress: called with (done_bytes, total_bytes).

    Returns:
        The path of the weights.

    Raises:
        InvalidArgumentError: the dtype is unknown, or files exist without ``force``.
        PresetError: the source does not exist or cannot be fetched.
        ConfigError: its configuration is not supported.
        WeightsError: its weights are malformed or already quantised, or the destination cannot be
            written.
    """
    converting = convert_async(
        source, destination, dtype, device=device, force=force, on_progress=on_progress
    )
    return sync(converting, "convert_async(...)")


async def convert_async(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    dtype: str,
    *,
    device: Device | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
) -> Path:
    """Async counterpart of :func:`convert`."""
    check_weight_format(dtype)
    optional_function("on_progress", on_progress)
    source, destination = resolve_preset(source), Path(destination)
    config = GPT2Config.from_json_file(source / "config.json")
    besides = [name for name in BESIDE_WEIGHTS if (source / name).is_file()]
    _check_destination(source, destination, force)
    device = checked_device(device) or await default_device_async()
    with Checkpoint.open(source) as checkpoint:
        if stored := quantization_of(checkpoint):
            raise WeightsError(f"{source} is already {stored}; convert the original checkpoint")
        config = await with_stored_head(config, checkpoint)
        entries = resolve(checkpoint, config.expected_tensors())
        described, layout_of = _described(entries, config, dtype), layouts(config)
        total, done = sum(entry.nbytes for entry in entries.values()), 0
        replaced = (
            *_old_weights(destination),
            *_MODEL_FILES,
        )  # weights first: without them nothing loads
        with StagedDirectory(destination, replaced, SINGLE_FILE) as stage:
            for name in besides:
                with AtomicFile(stage.path / name) as file:
                    file.write((source / name).read_bytes())
            path = stage.path / SINGLE_FILE
            with SafetensorsWriter(path, described, metadata_for(dtype)) as writer:
                for new, entry in zip(described, entries.values(), strict=True):
                    data = checkpoint.read(entry.name)
                    if new.dtype != entry.dtype or entry.transposed:
                        raw = Raw(data, entry.dtype, entry.shape, entry.transposed)
                        for piece in await _converted(device, raw, layout_of[new.name], dtype):
                            writer.write(piece)
                    else:
                        writer.write(data)
                    done += entry.nbytes
                    if on_progress is not None:
                        on_progress(done, total)
    return destination / SINGLE_FILE


def _described(
    entries: Mapping[str, TensorEntry], config: GPT2Config, dtype: str
) -> list[Description]:
    """Return the descriptions of the new file's tensors, in the order of ``entries``."""
    quantized = quantized_shapes(config, dtype) if dtype in QUANTIZED else {}
    chosen = {name for name, layout in layouts(config).items() if layout.chosen}
    return [
        Description(
            name,
            WEIGHT_FORMATS[dtype].file_dtype if name in chosen else entry.dtype,
            quantized.get(name, entry.shape[::-1] if entry.transposed else entry.shape),
        )
        for name, entry in entries.items()
    ]


async def _converted(device: Device, raw: Raw, layout: Layout, dtype: str) -> list[memoryview]:
    """Convert ``raw`` to ``dtype``; quantised matrices have the GPU's layout."""
    lines, width = reversed(raw.shape) if raw.transposed else raw.shape
    transpose = layout.transpose and not raw.transposed
    if dtype not in QUANTIZED:
        layout = replace(layout, out_features=Axis.plain(lines), in_features=Axis.plain(width))
        transpose = raw.transposed
    async with tidy("convert"):
        matrix = await load_matrix(
            device,
            raw,
            dtype,
            transpose=transpose,
            out_features=layout.out_features,
            in_features=layout.in_features,
        )
        parts = [(part.storage, 0, part.nbytes) for _, part in matrix.parts]
        pieces = await device.queue.read(parts)
    if dtype in QUANTIZED or matrix.in_features == width:
        return pieces
    item = WEIGHT_FORMATS[dtype].unit_bytes
    return [
        piece[begin : begin + width * item]  # without padding
        for piece in pieces
        for begin in range(0, piece.nbytes, matrix.in_features * item)
    ]


def _old_weights(destination: Path) -> tuple[str, ...]:
    return weights_there(destination) if destination.is_dir() else ()


def _check_destination(source: Path, destination: Path, force: bool) -> None:
    with suppress(OSError):
        try:
            os.lstat(destination)
        except ValueError:  # a NUL, or a lone surrogate
            name = shown(str(destination))
            raise InvalidArgumentError(f"{name} is not a valid directory name") from None
    if destination.exists() and not destination.is_dir():
        raise InvalidArgumentError(f"{destination} is a file: give a directory")
    if destination.exists() and destination.samefile(source):
        raise InvalidArgumentError(f"{destination} is the source itself: give another directory")
    names = (*_MODEL_FILES, *_old_weights(destination))
    there = [name for name in names if (destination / name).exists()]
    if there and not force:
        raise InvalidArgumentError(
            f"{destination} already has a {there[0]}: choose another directory, or overwrite it "
            "with --force (Python: force=True)"
        )
