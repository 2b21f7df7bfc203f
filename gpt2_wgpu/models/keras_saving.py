"""Models written as Keras' ``.keras`` files: ``save``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gpt2_wgpu.checkpoint_files import CONFIG, MERGES, VOCABULARIES
from gpt2_wgpu.errors import GPT2WGPUError, InvalidArgumentError, WeightsError
from gpt2_wgpu.models.saving import StoredModel, bytes_of
from gpt2_wgpu.nn import Raw
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.webgpu import Device
from gpt2_wgpu.weights.keras_archive import (
    ASSETS,
    CAUSAL_LM,
    METADATA,
    PREFIXES,
    SUFFIX,
    WEIGHTS_FILE,
)
from gpt2_wgpu.weights.keras_weights import array_paths, imported, keras_arrays
from gpt2_wgpu.weights.presets import is_possible
from gpt2_wgpu.weights.writer import AtomicFile

_KERAS_VERSION = "3.15.1"  # whose layout is written
_FORMATS = (None, "keras", "keras_v3")  # Keras' old argument save_format
_LEARNING_RATE = 2e-5  # of the optimizer that KerasHub's class makes


def checked_file(
    filepath: object, overwrite: bool, zipped: bool | None, save_format: str | None
) -> Path:
    """Return the path of a ``.keras`` file to write, with ``~`` expanded.

    Raises:
        InvalidArgumentError: another suffix or format, or the file exists without ``overwrite``.
    """
    if not isinstance(filepath, str | os.PathLike):
        raise InvalidArgumentError(f"filepath must be a str or a Path, not {shown(filepath)}")
    text = os.fsdecode(filepath)
    if not text.endswith(SUFFIX):
        raise InvalidArgumentError(
            f"save writes files with the suffix {SUFFIX}, not {shown(text)}; save_to_preset writes "
            "a directory in Hugging Face's format"
        )
    if save_format not in _FORMATS or zipped not in (None, True):
        what = f"save_format={shown(save_format)}" if zipped in (None, True) else "zipped=False"
        raise InvalidArgumentError(f"save writes one {SUFFIX} file: {what} is not supported")
    if not is_possible(text):
        raise InvalidArgumentError(f"{shown(text)} is not a valid file name")
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        raise InvalidArgumentError(f"{path} is a directory: give the name of a file")
    if path.exists() and not overwrite:
        raise InvalidArgumentError(
            f"{path} exists: give another name, or overwrite it with overwrite=True"
        )
    return path


async def save_keras(
    model: StoredModel,
    saved: Mapping[str, Any],
    preprocessor: GPT2CausalLMPreprocessor | None,
    path: Path,
) -> None:
    """Write a ``.keras`` file, whole or not at all.

    Args:
        model: the model.
        saved: its configuration, as Keras serialises it.
        preprocessor: has the vocabulary and the merges to write, if any.
        path: the file.

    Raises:
        WeightsError: the file cannot be written, is the one that adapters are merged into, or the
            weights are quantised, or h5py is not installed.
    """
    if model.adapted is not None and path.exists() and path.samefile(model.adapted):
        raise WeightsError(
            f"{path} holds the weights that this model's adapters are merged into whenever they "
            "are read: save into another file"
        )
    imported(str(path))
    with (
        AtomicFile(path) as file,
        _reporting(path),
        tempfile.TemporaryFile(dir=path.parent) as weights,
    ):
        await _write_weights(model, saved["class_name"], weights)
        with zipfile.ZipFile(file.stream, "w") as archive:
            date = time.strftime("%Y-%m-%d@%H:%M:%S")
            metadata = {"keras_version": _KERAS_VERSION, "date_saved": date}
            archive.writestr(METADATA, json.dumps(metadata))
            archive.writestr(CONFIG, json.dumps(saved))
            weights.seek(0)
            with archive.open(WEIGHTS_FILE, "w", force_zip64=True) as target:
                shutil.copyfileobj(weights, target, 1 << 20)
            if preprocessor is not None:
                for name, text in _assets(preprocessor).items():
                    archive.writestr(f"{ASSETS}/{name}", text)


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Raise WeightsError for what files, and h5py over them, raise when a disk is full."""
    try:
        yield
    except GPT2WGPUError:
        raise
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path}: cannot be written: {reason}") from None


def _assets(preprocessor: GPT2CausalLMPreprocessor) -> dict[str, str]:
    """Return the tokenizer's files, as KerasHub writes them: without a line for the version."""
    tokenizer = preprocessor.tokenizer
    vocabulary = json.dumps(tokenizer.get_vocabulary(), ensure_ascii=False)
    merges = "".join(f"{merge}\n" for merge in tokenizer.get_config()["merges"])
    return {VOCABULARIES[1]: vocabulary, MERGES: merges}


async def _write_weights(model: StoredModel, class_name: str, file: IO[bytes]) -> None:
    """Write ``model.weights.h5``; bfloat16, which NumPy lacks, becomes float32."""
    import h5py

    config, device = model.config, model.device
    with (
        model.open_weights(device, model.dtype) as fetch,
        h5py.File(file, "w") as stored,
    ):
        for name, paths in array_paths(config.n_layer, PREFIXES[class_name]).items():
            array = await _array(device, name, await fetch(name))
            arrays = keras_arrays(name, array, config.n_head)
            for path, part in zip(paths, arrays, strict=True):
                stored.create_dataset(path, data=part)
        if class_name == CAUSAL_LM:  # without them Keras warns that it skips its optimizer
            stored.create_dataset("optimizer/vars/0", data=0, dtype="int32")
            stored.create_dataset("optimizer/vars/1", data=_LEARNING_RATE, dtype="float32")


async def _array(device: Device, name: str, raw: Raw) -> Any:
    """Return a tensor as a NumPy array, [in_features, out_features]."""
    import numpy as np

    dtypes = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    if raw.dtype not in dtypes:
        raise WeightsError(
            f"{name} is quantised where the model was loaded from, which a {SUFFIX} file cannot "
            "hold: use save_to_preset, or load the original checkpoint"
        )
    data = bytearray()
    async for piece in bytes_of(device, raw):
        data += piece
    array = np.frombuffer(data, dtypes[raw.dtype]).reshape(raw.shape)
    if raw.dtype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return array.T if raw.transposed else array
