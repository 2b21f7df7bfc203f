"""GPT-2 with its language-model head."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_wgpu.errors import (
    ContextLengthError,
    DeviceLostError,
    InvalidArgumentError,
    ShapeError,
)
from gpt2_wgpu.models.decode_step import check_cache, checked_result
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_weights import Progress
from gpt2_wgpu.models.loading import ModelFiles, open_adapters, open_blobs, open_preset
from gpt2_wgpu.models.overrides import chosen, default, is_default, settled
from gpt2_wgpu.models.pace import WorkPace
from gpt2_wgpu.models.prediction import predicted
from gpt2_wgpu.models.prefill import Prefill, cache_bytes, chunk_rows, chunks, residual
from gpt2_wgpu.models.recovery import recover, with_recovery
from gpt2_wgpu.models.saved_causal_lm import SavedCausalLM
from gpt2_wgpu.nn import KVCache, SamplingState
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.preprocessing_layer import inner_config
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import integer, optional_function
from gpt2_wgpu.webgpu import Device, sync
from gpt2_wgpu.weights.blobs import Blob
from gpt2_wgpu.weights.lora import AdapterBytes, Adapters


class GPT2CausalLM(SavedCausalLM):
    """GPT-2 with a language-model head, for text generation.

    ``preprocessor``: conversion of text to ids and back; None for ids only.
    """

    name = "gpt2_causal_lm"
    presets = GPT2Backbone.presets

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        preprocessor: GPT2CausalLMPreprocessor | str | None = "auto",
        dtype: str | None = None,
        device: Device | None = None,
        on_progress: Progress | None = None,
        *,
        cache_dtype: str | None = None,
        adapter: Adapters | None = None,
        load_weights: bool = True,
    ) -> GPT2CausalLM:
        """Load a model; blocks (async counterpart: ``from_preset_async``).

        Args:
            preset: a preset name, a directory in Hugging Face's format, a hub id, or a ``.keras``
                file.
            preprocessor: "auto": the checkpoint's tokenizer; None: ids only.
            dtype: weight dtype, "float32", "float16" or quantised, e.g. "q8"
                (docs/quantization.md); arithmetic is f32. None: as ``gpt2-wgpu convert`` wrote the
                checkpoint, else float16; on a CPU adapter q8, with a ``UserWarning``, if a
                microbenchmark finds it faster.
            device: default: the default device.
            on_progress: called with (done_bytes, total_bytes) while weights load.
            cache_dtype: dtype of keys and values, "float32" or "float16". None: float16 on GPUs,
                float32 on CPU adapters.
            adapter: directory or hub id of a LoRA adapter in PEFT's format (in a browser also the
                URL of a directory), a list of them, or a dict name → weight, merged into the
                weights as they load (docs/lora.md).
            load_weights: False: GPT-2's random initialisation instead of the stored weights.

        Raises:
            PresetError, ConfigError, WeightsError, TokenizerError: the checkpoint is missing,
                malformed or not supported.
            DeviceError: the device failed. After an error no memory stays allocated.
        """
        loading = cls.from_preset_async(
            preset,
            preprocessor,
            dtype,
            device,
            on_progress,
            cache_dtype=cache_dtype,
            adapter=adapter,
            load_weights=load_weights,
        )
        return sync(loading, "from_preset_async(...)")

    @classmethod
    async def from_preset_async(
        cls,
        preset: str | os.PathLike[str],
        preprocessor: GPT2CausalLMPreprocessor | str | None = "auto",
        dtype: str | None = None,
        device: Device | None = None,
        on_progress: Progress | None = None,
        *,
        cache_dtype: str | None = None,
        adapter: Adapters | None = None,
        load_weights: bool = True,
    ) -> GPT2CausalLM:
        """Async counterpart of :meth:`from_preset`.

        In a browser ``preset`` may also be the URL of a directory, absolute or relative to the
        page. ``os.environ["HF_ENDPOINT"]`` sets a mirror of the Hub.
        """
        optional_function("on_progress", on_progress)
        adapters = await open_adapters(adapter)
        files = await open_preset(preset, preprocessor, load_weights)
        return await cls.from_files(files, dtype, device, on_progress, cache_dtype, adapters)

    @classmethod
    async def from_blobs(
        cls,
        blobs: Mapping[str, Blob],
        dtype: str | None = None,
        device: Device | None = None,
        on_progress: Progress | None = None,
        name: str = "model",
        *,
        cache_dtype: str | None = None,
        adapter: Adapters | None = None,
    ) -> GPT2CausalLM:
        """Load a model from files of a browser.

        ``blobs``: file name, as in a directory in Hugging Face's format → JavaScript's ``Blob``;
        weights are copied to the GPU in pieces, again after a device loss. ``name``: name of the
        model in messages. ``adapter``: as in ``from_preset``, or blobs of an adapter's files, by
        name. Other arguments and errors as in ``from_preset``.
        """
        optional_function("on_progress", on_progress)
        adapters = await open_adapters(adapter)
        files = await open_blobs(blobs, name)
        return await cls.from_files(files, dtype, device, on_progress, cache_dtype, adapters)

    @classmethod
    async def from_files(
        cls,
        files: ModelFiles,
        dtype: str | None,
        device: Device | None,
        on_progress: Progress | None,
        cache_dtype: str | None,
        adapters: Sequence[tuple[Path | AdapterBytes, float]],
    ) -> GPT2CausalLM:
        """Load the model of ``files``, with adapters merged into it."""
        loading = GPT2Backbone.from_files(files, dtype, device, on_progress, cache_dtype, adapters)
        backbone = await loading
        lm = cls(backbone, files.preprocessor)
        lm.token_rules = files.generation.rules
        lm.generation_defaults = dict(files.generation.defaults)
        lm.generation_limits = dict(files.generation.limits)
        lm.generation_settings = files.generation
        return lm

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return logits [B, T, V] of ``{"token_ids", "padding_mask"}`` [B, T], without a cache."""

        def compute() -> Tensor:
            with tidy() as scope:
                return scope.escape(
                    self.backbone.logits(self.backbone.forward_without_cache(inputs))
                )

        return with_recovery(self.backbone, compute)

    def predict(self, x: Any, batch_size: int = 32) -> Any:
        """Return the logits [N, T, V] as a NumPy array, computed in batches; blocks.

        Args:
            x: ``{"token_ids", "padding_mask"}`` [N, T]; or texts, which the preprocessor packs to
                its ``sequence_length``.
            batch_size: rows that are computed together.
        """
        if self.preprocessor is not None and not isinstance(x, Mapping):
            x = self.preprocessor(x)[0]
        return predicted(self, x, batch_size)

    # --- the pieces of generation ---------------------------------------------------------------

    @default
    def call_with_cache(
        self,
        token_ids: Any,
        cache: KVCache,
        cache_update_index: Any,
        *,
        sampling: SamplingState | None = None,
    ) -> tuple[Tensor, Tensor | None, KVCache]:
        """Compute logits and hidden states of tokens that follow the positions in ``cache``.

        Every decode step is a call with tensors. A method that replaces this one is recorded and
        replayed for every token if it calls functions of ``gpt2_wgpu.ops`` only; one that reads
        values runs for every token, which is slower.

        Args:
            token_ids: [B, T], host values or an integer tensor, whose values are not checked.
            cache: [B, L, 2, S, H, D]; keys and values are written in place.
            cache_update_index: position of the first token, one number or one per row; host
                values or an integer tensor, whose values are not checked.
            sampling: state of the default sampler, with a row for each of the B * T tokens; not
                passed to a replacement. With it the logits are penalised for the sampler, and
                hidden states are None.

        Returns:
            (logits [B, T, V], hidden_states [B, T, D], cache).

        Raises:
            InvalidArgumentError, ShapeError: ids are out of range; the batch size is wrong.
            ContextLengthError: the tokens exceed the cache (KerasHub overwrites its last rows).
        """
        check_cache(cache, self.backbone.config)
        backbone = self.backbone
        with tidy() as scope:
            ids = _ids(backbone, token_ids)
            batch, tokens = ids.shape
            if batch != cache.batch_size or not tokens:
                raise ShapeError(
                    f"token_ids [{batch}, {tokens}] for a cache of shape {cache.shape}"
                )
            starts = _starts(backbone, cache_update_index, ids.shape, cache.length)
            x = backbone.blocks(ids, cache, starts)
            if sampling is not None:
                logits = backbone.head(x.view((batch * tokens, 1, x.shape[-1])), sampling)
                return scope.escape(logits.view((batch, tokens, logits.shape[-1]))), None, cache
            logits, states = backbone.logits_and_hidden(x)
            hidden = backbone.unpad(states)
            scope.escape([logits, hidden])
        return logits, hidden, cache

    @default
    def build_cache(self, token_ids: Any) -> tuple[Tensor, KVCache]:
        """Create a KV cache filled with a prompt; blocks (async: ``build_cache_async``).

        ``token_ids`` [B, T] → (hidden_states [B, T, D], cache of length T).
        """
        building = GPT2CausalLM.build_cache_async(self, token_ids)
        hidden, cache = sync(building, "build_cache_async(...)")
        assert hidden is not None
        return hidden, cache

    @default
    async def build_cache_async(
        self,
        token_ids: Any,
        *,
        prefill: Prefill | None = None,
        hidden: list[Tensor] | None = None,
    ) -> tuple[Tensor | None, KVCache]:
        """The asynchronous form of :meth:`build_cache`.

        ``prefill``: has the cache to fill. Then no hidden states are returned (None); ``hidden``:
        list to which those of each chunk are appended.
        A method that replaces this one, or ``build_cache``, gets only ``token_ids``.
        """
        rows = rows_of_ids(token_ids, self.backbone.config.vocab_size, ragged=False)
        if not rows or not rows[0]:
            raise InvalidArgumentError("build_cache: token_ids are empty")
        if prefill is not None:
            if hidden is None and is_default(chosen(self, "call_with_cache")):
                await prefill.run(rows)
            else:
                await self._fill(prefill.cache, rows, hidden)
            return None, prefill.cache
        device = self.backbone.device
        try:
            return await self._built(rows)
        except DeviceLostError:
            await recover(self.backbone, device)
            return await self._built(rows)

    _build_cache = build_cache  # KerasHub's name

    async def _built(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, KVCache]:
        with tidy("build_cache") as scope:
            cache = self.backbone.new_cache(len(rows), len(rows[0]))
            hidden: list[Tensor] = []
            await self._fill(cache, rows, hidden)
            return scope.escape((hidden[0] if len(hidden) == 1 else ops.concat(hidden, 1), cache))

    async def _fill(
        self, cache: KVCache, rows: Sequence[Sequence[int]], hidden: list[Tensor] | None
    ) -> None:
        """Write keys and values of ``rows`` [B, T] to ``cache``, in chunks.

        ``hidden``: list to which the hidden states of each chunk are appended.
        """
        backbone, call = self.backbone, chosen(self, "call_with_cache")
        pace = WorkPace(backbone.device, backbone.dtype)
        for first, chunk in chunks(rows, chunk_rows(backbone, cache_bytes(cache))):
            with tidy("prefill") as scope:
                ids = backbone.as_uint32(chunk)
                if not is_default(call):
                    _, states, _ = checked_result(await settled(call(ids, cache, first)))
                else:
                    x = await residual(backbone, ids, cache, first, pace)
                    if hidden is not None:
                        states = backbone.unpad(backbone.final_norm(x))
                if hidden is not None:
                    hidden.append(scope.escape(states))

    def get_config(self) -> dict[str, Any]:
        """Return the configurations of backbone and preprocessor."""
        preprocessor = self.preprocessor
        return {
            "backbone": self.backbone.get_config(),
            "preprocessor": None if preprocessor is None else preprocessor.get_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GPT2CausalLM:
        """Create a model of a ``get_config``, KerasHub's included, with random weights."""
        if not isinstance(config, Mapping) or not isinstance(config.get("backbone"), Mapping):
            raise InvalidArgumentError(
                f"the config of {cls.__name__} must be a dict with a backbone, not {shown(config)}"
            )
        given = config.get("preprocessor")
        return cls(
            GPT2Backbone.from_config(inner_config(config["backbone"])),
            None if given is None else GPT2CausalLMPreprocessor.from_config(inner_config(given)),
        )

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.backbone!r}, {self.sampler!r}"

    def dispose(self) -> None:
        """Free the weights, and what generating has recorded. Idempotent."""
        self.kept_runs.close()
        self.backbone.dispose()

    def __enter__(self) -> GPT2CausalLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()


def _ids(backbone: GPT2Backbone, token_ids: Any) -> Tensor:
    """Return ``token_ids`` [B, T] as a tensor."""
    if isinstance(token_ids, Tensor):
        return _integers("token_ids", token_ids, "[B, T]", token_ids.ndim == 2)
    return backbone.as_uint32(rows_of_ids(token_ids, backbone.config.vocab_size, ragged=False))


def _starts(backbone: GPT2Backbone, index: Any, shape: tuple[int, ...], length: int) -> Tensor:
    """Return ``cache_update_index`` as a tensor, one per row of ids of ``shape`` [B, T]."""
    name, (batch, tokens) = "cache_update_index", shape
    if isinstance(index, Tensor):
        given = _integers(name, index, f"[], [1] or [{batch}]", index.shape in ((), (1,), (batch,)))
        given = given.view((given.size,))
        return given if given.size == batch else ops.concat([given] * batch)
    if hasattr(index, "__index__"):
        starts = [integer(name, index, 0, 2**31 - 1)] * batch
    else:
        (starts,) = rows_of_ids(index, 2**31, name)
    if len(starts) != batch:
        raise ShapeError(f"{name} has {len(starts)} entries for {batch} rows")
    if max(starts) + tokens > length:
        raise ContextLengthError(
            f"{tokens} tokens at {name} {max(starts)} end past the cache's {length} positions"
        )
    return backbone.as_uint32(starts)


def _integers(name: str, given: Tensor, wanted: str, fits: bool) -> Tensor:
    """Return ``given``; ShapeError unless it is an integer tensor whose shape ``fits``."""
    if given.check().dtype not in ("int32", "uint32") or not fits:
        raise ShapeError(f"{name} must be integers of shape {wanted}, not {given}")
    return given
