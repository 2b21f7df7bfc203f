"""Model files: where those of a preset are, and the weights, config and tokenizer in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gpt2_wgpu.checkpoint_files import BESIDE_WEIGHTS
from gpt2_wgpu.errors import ConfigError, InvalidArgumentError, TokenizerError
from gpt2_wgpu.models.addresses import address_of
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.fetching import fetch_adapter, fetch_files, name_of
from gpt2_wgpu.models.generation_config import (
    GenerationSettings,
    read_config,
    read_settings,
)
from gpt2_wgpu.models.gpt2_weights import (
    Fetch,
    OpenWeights,
    Progress,
    as_stored,
    random_fetch,
    stored_fetch,
)
from gpt2_wgpu.models.token_ids import check_vocabularies, settle_start_token
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer
from gpt2_wgpu.text.tokenizer_saving import preprocessor_settings
from gpt2_wgpu.webgpu import Device
from gpt2_wgpu.weights.blobs import Blob, BlobCheckpoint, read_blob
from gpt2_wgpu.weights.checkpoint import Checkpoint, WeightSource, weights_there
from gpt2_wgpu.weights.keras_archive import SUFFIX, keras_file, unpacked
from gpt2_wgpu.weights.keras_archive import WEIGHTS_FILE as KERAS_WEIGHTS
from gpt2_wgpu.weights.keras_weights import KerasWeights
from gpt2_wgpu.weights.lora import AdapterBytes, AdapterName, Adapters, weighted
from gpt2_wgpu.weights.presets import resolve as resolve_preset
from gpt2_wgpu.weights.sources import resolve_adapter

INITIALIZER_RANGE = 0.02  # standard deviation of GPT-2's random weights


@dataclass(frozen=True)
class ModelFiles:
    """A model that can be loaded; ``weights``: its place, or a source that stays open.

    None: GPT-2's random initialisation.
    """

    config: GPT2Config
    preprocessor: GPT2CausalLMPreprocessor | None
    weights: Path | WeightSource | None
    generation: GenerationSettings = field(default_factory=GenerationSettings)


async def open_preset(
    preset: str | os.PathLike[str],
    preprocessor: GPT2CausalLMPreprocessor | str | None,
    load_weights: bool = True,
) -> ModelFiles:
    """The files of a preset, directory or hub id; in browsers also of a directory's address.

    ``preprocessor``: "auto" makes one from the files. ``load_weights``: False: without weights.
    """
    if isinstance(preprocessor, str) and preprocessor != "auto":
        raise InvalidArgumentError(
            f"preprocessor must be 'auto', an object or None, not {shown(preprocessor)}"
        )
    if (address := address_of(preset)) is not None:
        files = await open_blobs(
            await fetch_files(address, load_weights), name_of(address), load_weights
        )
        return files if isinstance(preprocessor, str) else replace(files, preprocessor=preprocessor)
    if (path := keras_file(preset)) is not None:
        return open_keras_file(path, preprocessor, load_weights)
    directory = resolve_preset(preset, weights=load_weights)
    config = read_config(directory)
    if isinstance(preprocessor, str):
        preprocessor = _preprocessor_of(directory, config)
    weights = directory if load_weights else None
    return ModelFiles(config, preprocessor, weights, read_settings(directory))


def open_keras_file(
    path: Path, preprocessor: GPT2CausalLMPreprocessor | str | None, load_weights: bool
) -> ModelFiles:
    """The files of a model that Keras saved; see `open_preset`."""
    with unpacked(path) as (directory, saved):
        try:
            config = read_config(directory)
            if isinstance(preprocessor, str):
                if saved.preprocessor is None:
                    raise TokenizerError(
                        f"{path} was saved without a preprocessor: pass one of your own, or None"
                    )
                preprocessor = _preprocessor_of(directory, config)
        except (ConfigError, TokenizerError) as error:
            # The folder is ours: messages name the file instead.
            message = str(error).replace(str(directory), str(path))
            named = message if str(path) in message else f"{path}: {message}"
            raise type(error)(named) from None
    return ModelFiles(config, preprocessor, path if load_weights else None)


async def open_adapters(
    adapters: Adapters | None, name: str = "adapter"
) -> list[tuple[Path | AdapterBytes, float]]:
    """The files and weight of LoRA adapters: directories, hub ids, and what browsers have.

    ``name``: that of blobs in messages.
    """
    return [(await _adapter_files(each, name), weight) for each, weight in weighted(adapters)]


async def _adapter_files(adapter: AdapterName, name: str) -> Path | AdapterBytes:
    if isinstance(adapter, Mapping):
        return await AdapterBytes.of_blobs(adapter, name)
    if (address := address_of(adapter)) is not None:
        return await AdapterBytes.of_blobs(await fetch_adapter(address), name_of(address))
    return resolve_adapter(adapter)


async def open_blobs(blobs: Mapping[str, Blob], name: str, load_weights: bool = True) -> ModelFiles:
    """The files of a model ``name`` that a browser holds: file name → JavaScript's ``Blob``."""
    source = await BlobCheckpoint.open(blobs, name) if load_weights else None
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        for file_name in blobs.keys() & BESIDE_WEIGHTS:
            (directory / file_name).write_bytes(
                await read_blob(blobs[file_name], f"{name}/{file_name}")
            )
        try:
            config = read_config(directory)
            preprocessor = _preprocessor_of(directory, config)
            return ModelFiles(config, preprocessor, source, read_settings(directory))
        except (ConfigError, TokenizerError) as error:
            # The folder is ours: messages name the model instead.
            raise type(error)(str(error).replace(folder, name)) from None


async def stored_weights(
    config: GPT2Config,
    weights: Path | WeightSource | None,
    dtype: str | None,
    on_progress: Progress | None,
) -> tuple[GPT2Config, str | None, OpenWeights]:
    """Configuration, dtype and a reader of ``weights``, which may be read again and again.

    Configuration and dtype are as stored, where they are None or say nothing else.
    """

    @contextmanager
    def open_directory(device: Device, dtype: str) -> Iterator[Fetch]:
        assert isinstance(weights, Path)
        with _opened(weights, config) as source:
            yield stored_fetch(device, source, config, dtype, on_progress)

    def open_random(device: Device, dtype: str) -> AbstractContextManager[Fetch]:
        return nullcontext(random_fetch(device, config, INITIALIZER_RANGE, 0))

    def open_source(device: Device, dtype: str) -> AbstractContextManager[Fetch]:
        assert weights is not None and not isinstance(weights, Path)
        return nullcontext(stored_fetch(device, weights, config, dtype, on_progress))

    if weights is None:
        return config, dtype, open_random
    if isinstance(weights, Path):
        with _opened(weights, config) as source:
            config, dtype = await as_stored(config, dtype, source)
        return config, dtype, open_directory
    config, dtype = await as_stored(config, dtype, weights)
    return config, dtype, open_source


def _opened(directory: Path, config: GPT2Config) -> AbstractContextManager[WeightSource]:
    """Open the weights of a directory, safetensors or else Keras', or of a ``.keras`` file."""
    if directory.suffix == SUFFIX and not directory.is_dir():
        return KerasWeights.open(directory, config.n_layer)
    if (directory / KERAS_WEIGHTS).is_file() and not weights_there(directory):
        return KerasWeights.open(directory, config.n_layer)
    return Checkpoint.open(directory)


def _preprocessor_of(directory: Path, config: GPT2Config) -> GPT2CausalLMPreprocessor:
    tokenizer = GPT2Tokenizer.from_directory(directory)
    check_vocabularies(tokenizer, config.vocab_size)
    settle_start_token(tokenizer, config)
    settings = preprocessor_settings(directory, GPT2CausalLMPreprocessor.__name__)
    return GPT2CausalLMPreprocessor(
        tokenizer, **({"sequence_length": config.n_positions} | settings)
    )
