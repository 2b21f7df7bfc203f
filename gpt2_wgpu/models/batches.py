"""Generation for many prompts: sorted by length, in batches that fit into the memory budget."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Literal, Unpack, get_args, overload

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import (
    ContextLengthError,
    GPT2WGPUError,
    InvalidArgumentError,
    OutOfGPUMemoryError,
)
from gpt2_wgpu.models.call_arguments import check_arguments, named
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.generate_arguments import GenerateOptions, StopTokens
from gpt2_wgpu.models.row_ends import with_start_token
from gpt2_wgpu.samplers.sampler import runs_in_python, runs_its_own_loop
from gpt2_wgpu.sampling_parameters import SEED, TIME_LIMIT_SECONDS
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import instance, integer, optional_function
from gpt2_wgpu.webgpu import sync

WINDOW = 4  # batches of prompts that are sorted together, and lost if the process is killed
MAX_ROWS, MAX_ROWS_CPU = 256, 64  # of a batch whose size follows from the memory
OnProgress = Callable[[int], None]
OnError = Literal["stop", "skip"]
Item = str | GPT2WGPUError


class BatchOptions(GenerateOptions, total=False):
    """Keyword arguments of ``generate_batches`` that do not change the type of its results."""

    batch_size: int | None
    first: int
    on_progress: OnProgress | None


@overload
def generate_batches(
    lm: CausalLM,
    prompts: Iterable[str],
    max_length: int | None = ...,
    stop_token_ids: StopTokens = ...,
    strip_prompt: bool = ...,
    *,
    on_error: Literal["stop"] = ...,
    **options: Unpack[BatchOptions],
) -> Iterator[str]: ...
@overload
def generate_batches(
    lm: CausalLM,
    prompts: Iterable[str],
    max_length: int | None = ...,
    stop_token_ids: StopTokens = ...,
    strip_prompt: bool = ...,
    *,
    on_error: OnError,
    **options: Unpack[BatchOptions],
) -> Iterator[str | GPT2WGPUError]: ...
@named("gw.generate_batches")
def generate_batches(
    lm: CausalLM,
    prompts: Iterable[str],
    max_length: int | None = None,
    stop_token_ids: StopTokens = "auto",
    strip_prompt: bool = False,
    *,
    batch_size: int | None = None,
    first: int = 0,
    on_progress: OnProgress | None = None,
    on_error: OnError = "stop",
    **options: Unpack[GenerateOptions],
) -> Iterator[Any]:
    """Generate a text for each of any number of prompts; blocks (``generate_batches_async``).

    Prompts are read lazily, 4 batches at a time, and sorted by length, so that a batch has little
    padding; texts come in the order of the prompts.

    Args:
        lm: the model, with a preprocessor.
        prompts: any iterable of str.
        max_length: as in ``generate``.
        stop_token_ids: as in ``generate``.
        strip_prompt: as in ``generate``.
        batch_size: rows at once; default: what half of the free memory holds, at most 256 (64
            on CPU adapters). Where they exceed the memory, it is halved with a warning.
        first: number of the first prompt, for seeds and messages; where an earlier call ended.
        on_progress: called with the number of texts that each batch adds.
        on_error: what a prompt does that cannot be continued, e.g. is too long: "stop" raises its
            error after the texts before it; "skip" yields the error in place of its text.
        options: as in ``generate``, without ``callback``, ``num_return_sequences``,
            ``time_limit`` and ``cancellation``. ``seed`` plus the number of a prompt is the seed of
            its text, which does not depend on the batch.

    Yields:
        The texts, a str each; with ``on_error="skip"`` also errors.

    Raises:
        ContextLengthError: a prompt does not fit; the message has its number.
        InvalidArgumentError: a prompt is not a str, the options give several texts for a prompt,
            the sampler takes no seeds of rows, or as in ``generate``.
        OutOfGPUMemoryError: a single row exceeds the memory budget.
    """
    run = _Batches(
        lm,
        max_length,
        stop_token_ids,
        strip_prompt,
        batch_size,
        first,
        on_progress,
        on_error,
        options,
    )
    for window in _windows(prompts, run.size * WINDOW):
        yield from sync(run.texts(window), "generate_batches_async(...)")
        if run.error is not None:
            raise run.error


@overload
def generate_batches_async(
    lm: CausalLM,
    prompts: Iterable[str],
    max_length: int | None = ...,
    stop_token_ids: StopTokens = ...,
    strip_prompt: bool = ...,
    *,
    on_error: Literal["stop"] = ...,
    **options: Unpack[BatchOptions],
) -> AsyncIterator[str]: ...
@overload
def generate_batches_async(
    lm: CausalLM,
    prompts: Iterable[str],
    max_length: int | None = ...,
    stop_token_ids: StopTokens = ...,
    strip_prompt: bool = ...,
    *,
    on_error: OnError,
    **options: Unpack[BatchOptions],
) -> AsyncIterator[str | GPT2WGPUError]: ...
async def generate_batches_async(
    lm: CausalLM,
    prompts: Iterable[str],
    max_length: int | None = None,
    stop_token_ids: StopTokens = "auto",
    strip_prompt: bool = False,
    *,
    batch_size: int | None = None,
    first: int = 0,
    on_progress: OnProgress | None = None,
    on_error: OnError = "stop",
    **options: Unpack[GenerateOptions],
) -> AsyncIterator[Any]:
    """Async counterpart of :func:`generate_batches`."""
    run = _Batches(
        lm,
        max_length,
        stop_token_ids,
        strip_prompt,
        batch_size,
        first,
        on_progress,
        on_error,
        options,
    )
    for window in _windows(prompts, run.size * WINDOW):
        for text in await run.texts(window):
            yield text
        if run.error is not None:
            raise run.error


def _windows(prompts: Iterable[str], size: int) -> Iterator[list[str]]:
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable):
        raise InvalidArgumentError(f"prompts must be an iterable of str, not {shown(prompts)}")
    rest = iter(prompts)
    for first in rest:
        yield list(islice(chain([first], rest), size))


class _Batches:
    """Batches of one call, by windows; ``size`` is the number of rows that fit."""

    def __init__(
        self,
        lm: CausalLM,
        max_length: int | None,
        stop_token_ids: StopTokens,
        strip_prompt: bool,
        batch_size: int | None,
        first: int,
        on_progress: OnProgress | None,
        on_error: OnError,
        options: GenerateOptions,
    ) -> None:
        instance("lm", lm, CausalLM)
        optional_function("on_progress", on_progress)
        if lm.preprocessor is None:
            raise InvalidArgumentError(
                "generate_batches takes texts, but this model has no preprocessor"
            )
        most = MAX_ROWS_CPU if lm.backbone.device.info.is_software else MAX_ROWS
        self._sized = batch_size is None  # by the memory
        self.size = integer("batch_size", most if batch_size is None else batch_size, 1, 1 << 16)
        self.error: GPT2WGPUError | None = None
        if on_error not in get_args(OnError):
            raise InvalidArgumentError(f"on_error must be 'stop' or 'skip', not {shown(on_error)}")
        self._skip = on_error == "skip"
        self._lm = lm
        _check_options(lm, options)
        self._preprocessor = with_start_token(lm.preprocessor, options.get("add_start_token"))
        limits = max_length, options.get("max_new_tokens")
        length, new = lm.limits_of_call(*limits, self._preprocessor.sequence_length)
        context = lm.backbone.config.n_positions
        self._limit = lm.total_length(context if length is None else length, [])
        self._stops = stop_token_ids
        self._strip_prompt = strip_prompt
        self._on_progress = on_progress
        # Complete texts, also of a checkpoint with a time limit.
        endless: GenerateOptions = {"time_limit": TIME_LIMIT_SECONDS.high}
        self._options: GenerateOptions = {**options, "max_new_tokens": new, **endless}
        self._before = integer("first", first, 0, 2**63)  # number of the window's first prompt

    async def texts(self, prompts: list[str]) -> list[Item]:
        """Return the texts of a window of prompts, or up to the first error, :attr:`error`."""
        lengths = self._lengths(prompts)
        texts: list[Item] = ["" if isinstance(each, int) else each for each in lengths]
        if not self._skip:
            self.error = next((each for each in texts if not isinstance(each, str)), None)
            if self.error is not None:
                del texts[texts.index(self.error) :]
        rest = {i: n for i, n in enumerate(lengths[: len(texts)]) if isinstance(n, int)}
        order = sorted(rest, key=rest.__getitem__, reverse=True)
        if self._on_progress is not None and len(texts) > len(order):
            self._on_progress(len(texts) - len(order))
        while order:
            rows = order[: self._fitting(rest[order[0]])]
            try:
                found = await self._batch([prompts[i] for i in rows], rows)
            except OutOfGPUMemoryError:
                if len(rows) == 1:
                    raise
                self.size = len(rows) // 2
                warnings.warn(
                    f"{len(rows)} rows exceed the GPU memory: going on with {self.size} at once",
                    stacklevel=2,
                )
                continue
            for i, text in zip(rows, found, strict=True):
                texts[i] = text
            del order[: len(rows)]
            if self._on_progress is not None:
                self._on_progress(len(rows))
        self._before += len(prompts)
        return texts

    def _fitting(self, longest: int) -> int:
        """Return the rows of a batch whose longest prompt has this number of tokens."""
        if not self._sized:
            return self.size
        backbone = self._lm.backbone
        config, memory = backbone.config, backbone.device.memory.info(0)
        new_tokens = self._options.get("max_new_tokens")
        length = self._limit if new_tokens is None else min(self._limit, longest + new_tokens)
        item = 2 if backbone.cache_dtype == "float16" else 4
        cache = 2 * config.n_layer * config.n_embd * (length + 16) * item
        row = cache + 8 * 4 * (config.vocab_size + config.n_embd)  # logits and activations
        sampler = self._options.get("sampler")
        chosen = self._lm.sampler if sampler is None else samplers.get(sampler)
        beams = chosen.num_beams if isinstance(chosen, samplers.BeamSampler) else 1
        free = (memory.budget - memory.num_bytes_in_gpu) // 2
        return max(1, min(self.size, free // (row * beams)))

    async def _batch(self, prompts: list[str], rows: list[int]) -> list[str]:
        options = self._options.copy()
        if (seed := options.get("seed")) is not None:
            first = self._before + int(SEED.range.check("seed", seed))
            options["seed"] = [(first + row) % 2**64 for row in rows]
        return await self._lm.generate_async(
            prompts, self._limit, self._stops, self._strip_prompt, **options
        )

    def _lengths(self, prompts: list[str]) -> list[int | GPT2WGPUError]:
        """Return the number of tokens of each prompt, or its error."""
        return [self._length(number, each) for number, each in enumerate(prompts, self._before)]

    def _length(self, number: int, prompt: str) -> int | GPT2WGPUError:
        if not isinstance(prompt, str):
            return InvalidArgumentError(f"prompt {number} must be a str, not {shown(prompt)}")
        special = self._options.get("allowed_special")
        try:
            (ids,) = self._lm.encode_prompts([prompt], self._preprocessor, special)
        except (ContextLengthError, InvalidArgumentError) as error:
            return type(error)(f"prompt {number}: {error}")
        if len(ids) > self._limit:
            return ContextLengthError(
                f"prompt {number} has {len(ids)} tokens (start token included), but only "
                f"{self._limit} fit: shorten it"
            )
        return len(ids)


def _check_options(lm: CausalLM, options: GenerateOptions) -> None:
    """Raise InvalidArgumentError for options of ``generate`` that many batches cannot have."""
    known = GenerateOptions.__optional_keys__ | {"num_return_sequences"}  # rejected below
    check_arguments("gw.generate_batches", options, known - {"top_logprobs"})
    if options.get("callback") is not None:
        raise InvalidArgumentError(
            "generate_batches takes no callback, since it sorts its rows: give on_progress"
        )
    for name in ("time_limit", "cancellation"):
        if options.get(name) is not None:
            raise InvalidArgumentError(
                f"generate_batches takes no {name}, since it yields complete texts: leave its loop"
            )
    sampler = options.get("sampler")
    chosen = lm.sampler if sampler is None else samplers.get(sampler)
    several = isinstance(chosen, samplers.BeamSampler) and chosen.return_all_beams
    if several or options.get("num_return_sequences", 1) != 1:
        name = "return_all_beams" if several else "num_return_sequences"
        raise InvalidArgumentError(
            f"generate_batches yields one text for each prompt: omit {name}, or call generate"
        )
    if options.get("seed") is not None and (runs_in_python(chosen) or runs_its_own_loop(chosen)):
        raise InvalidArgumentError(
            f"generate_batches seeds each prompt, but {type(chosen).__name__} does not choose on "
            "the GPU row by row: omit seed"
        )
