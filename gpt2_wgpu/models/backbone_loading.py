"""Configuration of a backbone, and the life of its weights: loading, copying, freeing."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from gpt2_wgpu.copying import CopiedByAttributes
from gpt2_wgpu.errors import DisposedTensorError, InvalidArgumentError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.default_dtype import default_dtype
from gpt2_wgpu.models.gpt2_weights import GPT2Weights, OpenWeights, Progress, load_weights
from gpt2_wgpu.models.keras_config import backbone_object
from gpt2_wgpu.models.keras_saving import checked_file, save_keras
from gpt2_wgpu.models.loading import ModelFiles, open_adapters, open_preset, stored_weights
from gpt2_wgpu.models.lora_merge import with_adapters
from gpt2_wgpu.models.saving import StoredModel, save
from gpt2_wgpu.nn import check_cache_dtype, default_cache_dtype
from gpt2_wgpu.tensors import dispose, keep, tidy
from gpt2_wgpu.text import GPT2Preprocessor
from gpt2_wgpu.validation import dtype_of_policy, made_from, optional_function
from gpt2_wgpu.webgpu import Device, checked_device, default_device_async, sync
from gpt2_wgpu.weights.lora import AdapterBytes, Adapters
from gpt2_wgpu.weights.presets import presets as all_presets

#: Fields of `GPT2Config` that KerasHub's GPT2Backbone lacks; their defaults are what it computes.
SWITCHES = (
    "activation_function",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "tie_word_embeddings",
)


class LoadedBackbone(CopiedByAttributes):
    """Base class of ``GPT2Backbone``: configuration, weights, device, and source of the weights.

    The weights are read again after a device loss (recovery.py).
    """

    name = "gpt2_backbone"
    presets: ClassVar[Mapping[str, str]] = all_presets()  # name → description

    config: GPT2Config
    device: Device
    dtype: str
    cache_dtype: str
    dropout = 0.1
    weights: GPT2Weights
    adapted: Path | None = None  # directory of the weights that adapters are merged into
    disposed = False
    recovered_at = -math.inf  # when a lost device was last replaced (recovery.py)

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        dtype: str | None = None,
        device: Device | None = None,
        on_progress: Progress | None = None,
        *,
        cache_dtype: str | None = None,
        adapter: Adapters | None = None,
        load_weights: bool = True,
    ) -> Self:
        """Load the backbone of a preset, directory or hub id; see ``GPT2CausalLM.from_preset``."""
        loading = cls.from_preset_async(
            preset, dtype, device, on_progress, cache_dtype=cache_dtype, adapter=adapter,
            load_weights=load_weights,
        )  # fmt: skip
        return sync(loading, "GPT2Backbone.from_preset_async(...)")

    @classmethod
    async def from_preset_async(
        cls,
        preset: str | os.PathLike[str],
        dtype: str | None = None,
        device: Device | None = None,
        on_progress: Progress | None = None,
        *,
        cache_dtype: str | None = None,
        adapter: Adapters | None = None,
        load_weights: bool = True,
    ) -> Self:
        """Async counterpart of :meth:`from_preset`."""
        optional_function("on_progress", on_progress)
        adapters = await open_adapters(adapter)
        files = await open_preset(preset, None, load_weights)
        return await cls.from_files(files, dtype, device, on_progress, cache_dtype, adapters)

    @classmethod
    async def from_files(
        cls, files: ModelFiles, dtype: str | None, device: Device | None,
        on_progress: Progress | None, cache_dtype: str | None,
        adapters: Sequence[tuple[Path | AdapterBytes, float]],
    ) -> Self:  # fmt: skip
        """Load the backbone of ``files``, with adapters merged into it."""
        if adapters and files.weights is None:
            raise InvalidArgumentError(
                "an adapter belongs to the stored weights: leave out load_weights=False"
            )
        stored = await stored_weights(files.config, files.weights, dtype, on_progress)
        config, dtype, open_weights = stored
        open_weights = with_adapters(config, open_weights, adapters)
        self = await cls.from_weights(config, open_weights, dtype, cache_dtype, device)
        if adapters and isinstance(files.weights, Path):
            self.adapted = files.weights
        return self

    @classmethod
    async def from_weights(
        cls, config: GPT2Config, open_weights: OpenWeights,
        dtype: str | None, cache_dtype: str | None, device: Device | None,
    ) -> Self:  # fmt: skip
        """Load a backbone from the context ``open_weights``, used again after a device loss."""
        self = cls.__new__(cls)
        if cache_dtype is not None:
            check_cache_dtype(cache_dtype)
        device = checked_device(device) or await default_device_async()
        await self._load(config, open_weights, dtype, cache_dtype, device)
        return self

    def save_to_preset(self, preset_dir: str | os.PathLike[str]) -> None:
        """Write configuration and weights into a directory; blocks (``save_to_preset_async``).

        The directory has Hugging Face's format, which KerasHub reads, too. Weights are copied from
        where the model was loaded from, in the dtype they have there; for others see ``convert``.
        Files of a tokenizer and ``generation_config.json`` in the directory stay.

        Raises:
            WeightsError: the directory cannot be written, or the weights' source cannot be read.
        """
        sync(self.save_to_preset_async(preset_dir), "save_to_preset_async(...)")

    async def save_to_preset_async(
        self,
        preset_dir: str | os.PathLike[str],
        *,
        preprocessor: GPT2Preprocessor | None = None,
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        """Async counterpart of :meth:`save_to_preset`; writes ``preprocessor``, too.

        ``generation``: values of ``generation_config.json``; empty: none is written, and an old one
        is removed.
        """
        await save(self.stored(), preprocessor, generation, preset_dir)

    save_pretrained = save_to_preset

    def stored(self) -> StoredModel:
        """Return the configuration, and the source of the weights, to write them."""
        self.check_usable()
        return StoredModel(self.config, self.dtype, self.device, self._open_weights, self.adapted)

    def save(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: bool | None = None,
        *,
        save_format: str | None = None,
    ) -> None:
        """Write a ``.keras`` file, which ``load_model`` reads here and in Keras; blocks.

        It holds configuration and weights, of a subclass those of ``GPT2Backbone``. Weights are
        copied from where the model was loaded from, in float32 or float16. The file is replaced
        when it is whole. Needs ``pip install 'gpt2-wgpu[keras]'``.

        Args:
            filepath: path with the suffix ``.keras``; for other formats see ``save_to_preset``.
            overwrite: whether to replace an existing file; Keras asks on the terminal.
            zipped: None or True.
            save_format: None, "keras" or "keras_v3".

        Raises:
            InvalidArgumentError: another suffix or format, or the file exists.
            ConfigError: KerasHub's classes cannot compute what this model does.
            WeightsError: the file cannot be written, the weights' source cannot be read or is
                quantised, or h5py is missing.
        """
        saving = self.save_async(filepath, overwrite, zipped, save_format=save_format)
        sync(saving, "save_async(...)")

    async def save_async(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: bool | None = None,
        *,
        save_format: str | None = None,
    ) -> None:
        """Async counterpart of :meth:`save`."""
        path = checked_file(filepath, overwrite, zipped, save_format)
        await save_keras(self.stored(), backbone_object(self.get_config()), None, path)

    async def _load(
        self, config: GPT2Config, open_weights: OpenWeights,
        dtype: str | None, cache_dtype: str | None, device: Device,
    ) -> None:  # fmt: skip
        self.config, self.device = config, device
        self.cache_dtype = cache_dtype or default_cache_dtype(device)
        self.dtype = dtype or await default_dtype(device, config)
        self._open_weights = open_weights
        self.weights = await self.load(device)

    async def load(self, device: Device) -> GPT2Weights:
        """Load the weights from their source onto ``device``."""
        with self._open_weights(device, self.dtype) as fetch:
            return await load_weights(device, self.config, fetch, self.dtype)

    def dispose(self) -> None:
        """Free the weights; running generations end with an error. Idempotent."""
        self.disposed = True
        dispose(self.weights)

    def check_usable(self) -> None:
        """Raise DisposedTensorError if the weights were freed."""
        if self.disposed:
            raise DisposedTensorError("this model was disposed: load it again")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy with its own weights, on the same device."""
        self.check_usable()
        with tidy("copy of a model"):  # an exception frees the matrices copied before
            copied = super().__deepcopy__(memo)
            keep(copied.weights)
        return copied

    _instead_of_pickling = "load it in the other process (from_preset)"

    def __str__(self) -> str:
        size = f"{self.config.parameter_count():,} parameters in {self.dtype}"
        return f"{type(self).__name__}, {size}, on {self.device.info.name}"

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    @property
    def num_layers(self) -> int:
        """Number of transformer blocks."""
        return self.config.n_layer

    @property
    def num_heads(self) -> int:
        """Number of attention heads of a block."""
        return self.config.n_head

    @property
    def hidden_dim(self) -> int:
        """Width of the hidden states."""
        return self.config.n_embd

    @property
    def intermediate_dim(self) -> int:
        """Width of a block's feed-forward layer."""
        return self.config.intermediate_dim

    @property
    def max_sequence_length(self) -> int:
        """Number of positions: the context."""
        return self.config.n_positions

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments; those of `SWITCHES` where they differ from GPT-2's.

        ``dtype``: the weight dtype (Keras has a serialised policy there).
        """
        config = self.config
        values = {
            "name": self.name,
            "dtype": self.dtype,
            "vocabulary_size": config.vocab_size,
            "num_layers": config.n_layer,
            "num_heads": config.n_head,
            "hidden_dim": config.n_embd,
            "intermediate_dim": config.intermediate_dim,
            "dropout": self.dropout,
            "max_sequence_length": config.n_positions,
        }
        switches = {name: getattr(config, name) for name in SWITCHES}
        return values | {
            name: value
            for name, value in switches.items()
            if value != GPT2Config.__dataclass_fields__[name].default
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create a backbone of this configuration, Keras' included, with random weights."""
        arguments = {key: value for key, value in config.items() if key != "trainable"}
        if "dtype" in arguments:
            arguments["dtype"] = dtype_of_policy(arguments["dtype"])
        return made_from(cls, arguments)
