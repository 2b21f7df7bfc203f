"""GPT-2 with its language-model head."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpt2_wgpu.checkpoint_files import BESIDE_WEIGHTS
from gpt2_wgpu.errors import (
    ConfigError,
    ContextLengthError,
    InvalidArgumentError,
    ShapeError,
    TokenizerError,
)
from gpt2_wgpu.models import evaluation
from gpt2_wgpu.models.addresses import address_of
from gpt2_wgpu.models.causal_lm import CausalLM, StopTokens
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.evaluation import Divergence
from gpt2_wgpu.models.fetching import fetch_files, name_of
from gpt2_wgpu.models.generation_config import read_config
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_weights import Progress
from gpt2_wgpu.models.presets import resolve as resolve_preset
from gpt2_wgpu.models.recovery import with_recovery
from gpt2_wgpu.models.text_stream import TextStream
from gpt2_wgpu.models.token_ids import check_vocabularies, settle_start_token
from gpt2_wgpu.nn import KVCache
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, tidy
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer, StopTextMatcher
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device, sync
from gpt2_wgpu.weights.blobs import Blob, BlobCheckpoint, read_blob

Texts = str | Sequence[str] | Sequence[Sequence[int]]


class GPT2CausalLM(CausalLM):
    """GPT-2 that generates text.

    ``backbone``: the transformer; ``preprocessor``: text to ids and back, None for ids only.
    """

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        preprocessor: GPT2CausalLMPreprocessor | str | None = "auto",
        dtype: str | None = None,
        device: Device | None = None,
        on_progress: Progress | None = None,
        *,
        cache_dtype: str = "float32",
    ) -> GPT2CausalLM:
        """Load a model: a preset name, a directory in Hugging Face's format, or a hub id.

        ``dtype``: how matrices are stored, "float32", "float16", "q8" or "q4" (arithmetic is f32);
        None: as ``gpt2-wgpu convert`` wrote the checkpoint, else float16; on a CPU adapter q8 where
        a short measurement finds that faster, which a ``UserWarning`` then tells.
        ``cache_dtype``: how keys and values are stored, "float32" or "float16".
        ``preprocessor``: "auto" takes the checkpoint's tokenizer; None works on ids.
        ``on_progress(done_bytes, total_bytes)`` is called while weights load. Blocks;
        ``from_preset_async`` is the twin.

        Raises ``PresetError``, ``ConfigError``, ``WeightsError``, ``TokenizerError`` or a
        ``DeviceError``; nothing stays allocated then.
        """
        loading = cls.from_preset_async(
            preset, preprocessor, dtype, device, on_progress, cache_dtype=cache_dtype
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
        cache_dtype: str = "float32",
    ) -> GPT2CausalLM:
        """The asynchronous form of :meth:`from_preset`.

        In a browser ``preset`` may also be the address of a directory, whole or relative to the
        page. ``os.environ["HF_ENDPOINT"]`` may name a mirror of the Hub.
        """
        if isinstance(preprocessor, str) and preprocessor != "auto":
            raise InvalidArgumentError(
                f"preprocessor must be 'auto', an object or None, not {shown(preprocessor)}"
            )
        if (address := address_of(preset)) is not None:
            files = await fetch_files(address)
            name = name_of(address)
            lm = await cls.from_blobs(
                files, dtype, device, on_progress, name, cache_dtype=cache_dtype
            )
            return lm if isinstance(preprocessor, str) else cls(lm.backbone, preprocessor)
        directory = resolve_preset(preset)
        config = read_config(directory)
        if isinstance(preprocessor, str):
            preprocessor = _preprocessor_of(directory, config)
        backbone = await GPT2Backbone.from_directory(
            directory,
            config=config,
            dtype=dtype,
            cache_dtype=cache_dtype,
            device=device,
            on_progress=on_progress,
        )
        return cls(backbone, preprocessor)

    @classmethod
    async def from_blobs(
        cls,
        blobs: Mapping[str, Blob],
        dtype: str | None = None,
        device: Device | None = None,
        on_progress: Progress | None = None,
        name: str = "model",
        *,
        cache_dtype: str = "float32",
    ) -> GPT2CausalLM:
        """Load a model from files that a browser holds: file name → JavaScript's ``Blob``.

        The names are those of a directory in Hugging Face's format. Weights go from the blob to
        the GPU in pieces; they are read again if the device is lost. ``name`` is what messages
        call the model. Raises what ``from_preset_async`` raises.
        """
        source = await BlobCheckpoint.open(blobs, name)
        with TemporaryDirectory() as folder:
            directory = Path(folder)
            for file_name in blobs.keys() & BESIDE_WEIGHTS:
                (directory / file_name).write_bytes(
                    await read_blob(blobs[file_name], f"{name}/{file_name}")
                )
            try:
                config = read_config(directory)
                preprocessor = _preprocessor_of(directory, config)
            except (ConfigError, TokenizerError) as error:
                # Whoever gave the files has never seen this folder.
                raise type(error)(str(error).replace(folder, name)) from None
        backbone = await GPT2Backbone.from_source(
            config,
            source,
            dtype=dtype,
            cache_dtype=cache_dtype,
            device=device,
            on_progress=on_progress,
        )
        return cls(backbone, preprocessor)

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        """Logits [B, T, V] of ``{"token_ids", "padding_mask"}`` [B, T], without a cache."""

        def compute() -> Tensor:
            with tidy() as scope:
                return scope.escape(self.backbone.logits(self.backbone.uncached(inputs)))

        return with_recovery(self.backbone, compute)

    # --- the pieces of generation ---------------------------------------------------------------

    def call_with_cache(
        self, token_ids: Any, cache: KVCache, cache_update_index: Any
    ) -> tuple[Tensor, Tensor, KVCache]:
        """Logits and hidden states of ``token_ids`` [B, T], which follow what ``cache`` holds.

        ``cache_update_index``: position of the first of them, one number or one a row. Keys and
        values are written into ``cache`` [B, L, 2, S, H, D] in place.
        → (logits [B, T, V], hidden_states [B, T, D], cache).

        Raises ``InvalidArgumentError`` for ids out of range, ``ShapeError`` for a batch that is
        not the cache's, ``ContextLengthError`` past its end (KerasHub overwrites the last rows).
        """
        ids = rows_of_ids(token_ids, self.backbone.config.vocab_size, ragged=False)
        _check_cache(cache, self.backbone.config)
        batch, tokens = len(ids), len(ids[0]) if ids else 0
        if batch != cache.batch_size or not tokens:
            raise ShapeError(f"token_ids [{batch}, {tokens}] for a cache of shape {cache.shape}")
        starts = _starts(cache_update_index, batch)
        if max(starts) + tokens > cache.length:
            raise ContextLengthError(
                f"{tokens} tokens at cache_update_index {max(starts)} end past the cache's "
                f"{cache.length} positions"
            )
        with tidy() as scope:
            backbone, words = self.backbone, self.backbone.words
            x = backbone.blocks(words(ids), cache, words(starts))
            logits, hidden = backbone.logits(x), backbone.trimmed(backbone.normalized(x))
            scope.escape([logits, hidden])
        return logits, hidden, cache

    def build_cache(self, token_ids: Any) -> tuple[Tensor, KVCache]:
        """A cache filled by ``token_ids`` [B, T] → (hidden_states [B, T, D], cache of length T)."""
        ids = rows_of_ids(token_ids, self.backbone.config.vocab_size, ragged=False)
        if not ids or not ids[0]:
            raise InvalidArgumentError("build_cache: token_ids are empty")

        def compute() -> tuple[Tensor, KVCache]:
            with tidy() as scope:
                cache = self.backbone.new_cache(len(ids), len(ids[0]))
                backbone, words = self.backbone, self.backbone.words
                x = backbone.blocks(words(ids), cache, words([0] * len(ids)))
                return scope.escape((backbone.trimmed(backbone.normalized(x)), cache))

        return with_recovery(self.backbone, compute)

    # --- evaluation -----------------------------------------------------------------------------

    def perplexity(self, texts: Texts, stride: int | None = None) -> float:
        """exp of the mean -log p of the tokens of ``texts``; lower is better.

        Each text begins as a prompt does (without a preprocessor: give rows of ids), and windows
        as long as the context move on by ``stride`` tokens (default: half the context), so that
        each token is predicted once: models/evaluation.py has the definition. Blocks;
        ``perplexity_async`` is the twin.

        Raises ``InvalidArgumentError`` for a stride that is not from 1 to the context and for
        texts without a token to predict, ``NumericalError`` where logits are not finite.
        """
        return sync(self.perplexity_async(texts, stride), "perplexity_async(...)")

    async def perplexity_async(self, texts: Texts, stride: int | None = None) -> float:
        """The asynchronous form of :meth:`perplexity`."""
        return await evaluation.perplexity(self, texts, stride)

    def divergence(
        self, texts: Texts, reference: GPT2CausalLM, stride: int | None = None
    ) -> Divergence:
        """How far this model's predictions are from those of ``reference``, say itself in float32.

        The mean Kullback-Leibler divergence KL(reference || self) of the tokens of ``texts``, in
        nats, and the share of them for which both find the same token likeliest. Unlike a
        perplexity it says something of a model that predicts nothing well. Texts, windows and
        errors are those of :meth:`perplexity`; both models must be on one device and have as many
        tokens. Blocks; ``divergence_async`` is the twin.
        """
        return sync(self.divergence_async(texts, reference, stride), "divergence_async(...)")

    async def divergence_async(
        self, texts: Texts, reference: GPT2CausalLM, stride: int | None = None
    ) -> Divergence:
        """The asynchronous form of :meth:`divergence`."""
        return await evaluation.divergence(self, reference, texts, stride)

    # --- streaming ------------------------------------------------------------------------------

    def stream(
        self,
        prompt: str,
        max_new_tokens: int | None = None,
        *,
        stop_token_ids: StopTokens = "auto",
        stop_texts: Sequence[str] = (),
        add_start_token: bool | None = None,
        allowed_special: AllowedSpecial | None = None,
    ) -> TextStream:
        """Generate from ``prompt`` and give the text piece by piece, without the prompt.

        ``max_new_tokens`` (default: as many as the context holds) is cut to what fits; the reason
        in ``stream.stats`` then is "length". ``stop_texts`` end the text before they appear;
        one that is a special token ends it where that token is generated. ``add_start_token`` and
        ``allowed_special`` (special tokens that the prompt may spell out, or "all") override the
        preprocessor's. The same object serves ``async for``.

        Raises ``ContextLengthError`` when the prompt fills the context, ``InvalidArgumentError``
        for a token that has no row in the model.
        """
        begun = time.perf_counter()
        preprocessor = self._require_preprocessor("stream works on text; for ids use generate")
        if not isinstance(prompt, str):
            raise InvalidArgumentError(f"stream takes one prompt, a str, not {shown(prompt)}")
        if add_start_token is not None and add_start_token != preprocessor.add_start_token:
            preprocessor = GPT2CausalLMPreprocessor(
                preprocessor.tokenizer,
                preprocessor.sequence_length,
                add_start_token=add_start_token,
                add_end_token=preprocessor.add_end_token,
                allowed_special=preprocessor.allowed_special,
            )
        rows = self.encode_prompts([prompt], preprocessor, allowed_special)
        context = self.total_length(self.backbone.config.n_positions, rows)
        (ids,) = rows
        if len(ids) == context:
            raise ContextLengthError(
                f"the prompt's {len(ids)} tokens (start token included) fill the model's context, "
                f"so nothing can follow: at most {context - 1} may"
            )
        limit = context
        if max_new_tokens is not None:
            limit = min(context, len(ids) + integer("max_new_tokens", max_new_tokens, 1, 2**31 - 1))
        stops = self.resolve_stop_tokens(stop_token_ids)
        matcher = StopTextMatcher(stop_texts)
        options = self.sampler.next_options()
        candidates = self.candidates(stops)
        generation = Generation(self.backbone, rows, [limit], options, stops, candidates)
        return TextStream(generation, preprocessor.tokenizer, len(ids), matcher, begun)

    stream_async = stream

    def get_config(self) -> dict[str, Any]:
        """Configurations of backbone and preprocessor."""
        preprocessor = self.preprocessor
        return {
            "backbone": self.backbone.get_config(),
            "preprocessor": None if preprocessor is None else preprocessor.get_config(),
        }

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.backbone!r}, {self.sampler!r}"

    def dispose(self) -> None:
        """Free the weights. Idempotent."""
        self.backbone.dispose()

    def __enter__(self) -> GPT2CausalLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()


def _starts(cache_update_index: Any, batch: int) -> list[int]:
    """One start position a row, from a number or from one a row."""
    if hasattr(cache_update_index, "__index__"):
        return [integer("cache_update_index", cache_update_index, 0, 2**31 - 1)] * batch
    (starts,) = rows_of_ids(cache_update_index, 2**31, "cache_update_index")
    if len(starts) != batch:
        raise ShapeError(f"cache_update_index has {len(starts)} entries for {batch} rows")
    return starts


def _check_cache(cache: Any, config: GPT2Config) -> None:
    """Raises ``ShapeError`` unless ``cache`` is one of this model's."""
    if not isinstance(cache, KVCache):
        raise ShapeError(
            f"the cache must be one that build_cache returned, not {type(cache).__name__}"
        )
    ours = (config.n_layer, config.n_head, config.head_dim)
    if (cache.shape[1], cache.num_heads, cache.head_dim) != ours:
        raise ShapeError(
            f"the cache [B, L, 2, S, H, D] = {cache.shape} is not of this model, which has "
            f"L, H, D = {ours}"
        )


def _preprocessor_of(directory: Path, config: GPT2Config) -> GPT2CausalLMPreprocessor:
    tokenizer = GPT2Tokenizer.from_directory(directory)
    check_vocabularies(tokenizer, config.vocab_size)
    settle_start_token(tokenizer, config)
    return GPT2CausalLMPreprocessor(tokenizer, config.n_positions)
