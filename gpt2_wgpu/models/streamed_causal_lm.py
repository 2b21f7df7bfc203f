"""``StreamedCausalLM``: ``CausalLM`` with text that is generated piece by piece."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, Unpack, overload

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models.call_arguments import named
from gpt2_wgpu.models.call_settings import CallSettings
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.control import Cancellation, Control
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.generate_arguments import SamplerLike, Seeds, StopTokens, StreamOptions
from gpt2_wgpu.models.generation_details import new_step_logprobs
from gpt2_wgpu.models.overrides import chosen, is_default
from gpt2_wgpu.models.packed_ids import packed, prompts_of, rows_of, without_prompts
from gpt2_wgpu.models.piece_stream import Opened, WholeTexts
from gpt2_wgpu.models.returned_sequences import best_beams_of
from gpt2_wgpu.models.row_ends import RowEnds, with_start_token
from gpt2_wgpu.models.text_stream import BatchStream, TextStream
from gpt2_wgpu.samplers import runs_its_own_loop
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, TokenReader
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids
from gpt2_wgpu.validation import instance

T = TypeVar("T")


class StreamedCausalLM(CausalLM):
    """``CausalLM`` with ``stream``."""

    @overload
    def stream(
        self,
        inputs: str | Sequence[int],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        *,
        num_return_sequences: Literal[1] = ...,
        **options: Unpack[StreamOptions],
    ) -> TextStream: ...

    @overload
    def stream(
        self,
        inputs: str | Sequence[int],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        *,
        num_return_sequences: int,
        **options: Unpack[StreamOptions],
    ) -> TextStream | BatchStream: ...

    @overload
    def stream(
        self,
        inputs: list[str] | tuple[str, ...] | Sequence[Sequence[int]],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        *,
        num_return_sequences: int = ...,
        **options: Unpack[StreamOptions],
    ) -> BatchStream: ...

    @overload
    def stream(
        self,
        inputs: dict[str, Any],
        max_length: int | None = ...,
        stop_token_ids: StopTokens = ...,
        *,
        num_return_sequences: int = ...,
        **options: Unpack[StreamOptions],
    ) -> TextStream | BatchStream: ...

    @named("lm.stream")
    def stream(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        *,
        max_new_tokens: int | None = None,
        stop_texts: Sequence[str] | None = None,
        sampler: SamplerLike | None = None,
        seed: Seeds | None = None,
        num_return_sequences: int = 1,
        add_start_token: bool | None = None,
        allowed_special: AllowedSpecial | None = None,
        top_logprobs: int | None = None,
        time_limit: float | None = None,
        cancellation: Cancellation | None = None,
        wait: bool = True,
    ) -> Any:
        """Generate text piece by piece, without the prompt.

        A replaced ``generate_preprocess``, ``build_cache`` or ``call_with_cache`` is called here,
        too. If ``make_generate_function``, ``generate_step``, ``generate_postprocess`` or the
        sampler's ``__call__`` is replaced, the text arrives in one piece when it is complete.

        Args:
            inputs: one prompt: a str; its ids, to which no start token is added; or a dict with
                one row of packed ids, as in :meth:`generate`. Several prompts: a list of str, rows
                of ids, or a dict with several rows.
            max_length: limit of all tokens, including prompt and start token; default, and
                maximum: the context. For a dict the array's length is used. Without both limits
                those of the checkpoint apply, ``lm.generation_limits``.
            max_new_tokens: limit of the new tokens, besides ``max_length``.
            stop_token_ids: see :meth:`generate`, as for all other arguments.
            stop_texts: see there.
            sampler: see there.
            seed: see there.
            num_return_sequences: see there; above 1 they are rows, as those of several prompts.
            add_start_token: see there.
            allowed_special: see there.
            top_logprobs: number of the most likely ids of each token, at most 20: after each piece
                ``stream.last_details`` has the ``TokenDetails`` of its tokens. None: it is empty.
            time_limit: see there.
            cancellation: see there; or call the stream's ``cancel``.
            wait: see there. The stream's turn is from the first piece to the end or ``close``.

        Returns:
            A stream, for ``for`` and ``async for``: of pieces of text, or for several prompts of
            pairs ``(row, piece)``; each row has the text of its prompt in ``generate``. After the
            end its ``details()`` are those of ``generate(..., return_details=True)``.

        Raises:
            ContextLengthError: a prompt fills the context.
            InvalidArgumentError: a token has no row in the model, or an argument is invalid.
        """
        begun = time.perf_counter()
        preprocessor = self._require_preprocessor("stream gives text; for ids use generate")
        context = self.backbone.config.n_positions
        if not isinstance(inputs, Mapping):
            limits = max_length, max_new_tokens
            max_length, max_new_tokens = self.limits_of_call(*limits, context)
        stop_texts, time_limit = self.ends_of_call(stop_texts, time_limit)
        control = Control(time_limit, cancellation)
        logprobs = new_step_logprobs(top_logprobs, self)
        settings = self._settings(sampler, seed, max_new_tokens, control)
        best = best_beams_of(self, settings.sampler, num_return_sequences)
        settings = replace(settings, logprobs=logprobs, best_beams=best)
        instance("wait", wait, bool)
        turn = self.turns.turn(control, wait)
        preprocessor = with_start_token(preprocessor, add_start_token)
        stops = self.resolve_stop_tokens(stop_token_ids)
        ends = RowEnds(preprocessor, max_new_tokens, stop_texts)
        length = context if max_length is None else self.total_length(max_length, [])
        given: Any
        if _has_texts(inputs):
            rows = 1 if isinstance(inputs, str) else len(inputs)
            lengths = [length] * rows
            given = self._preprocess(preprocessor, inputs, length, allowed_special)
        else:
            given, lengths = self._packed_prompts(inputs, length)
        count = len(lengths) * num_return_sequences
        readers = [TokenReader(preprocessor.tokenizer, stop_texts) for _ in range(count)]
        times = num_return_sequences // best

        def open_source(given: Any) -> Opened:
            return self._open_source(preprocessor, given, lengths, stops, settings, ends, times)

        several = count > 1 or (isinstance(inputs, list | tuple) and not _is_row(inputs))
        kind = BatchStream if several else TextStream
        return kind(given, open_source, readers, begun, self, turn, control, logprobs)

    stream_async = stream

    def _packed_prompts(self, inputs: Any, length: int) -> tuple[dict[str, Any], list[int]]:
        """Return the ids of prompts, packed, and the limit of the total length of each."""
        vocabulary = self.backbone.config.vocab_size
        if isinstance(inputs, Mapping):
            ids, mask = rows_of(inputs, vocabulary)
            prompts, starts = prompts_of(ids, mask)
            if not prompts:
                raise InvalidArgumentError(f"{_TAKES}, not 0 rows")
            lengths = [len(row) - start for row, start in zip(ids, starts, strict=True)]
            self.total_length(max(lengths), prompts)
            return dict(inputs), lengths
        if isinstance(inputs, bytes | set) or not hasattr(inputs, "__len__") or not len(inputs):
            raise InvalidArgumentError(f"{_TAKES}, not {shown(inputs)}")
        prompts = rows_of_ids(inputs, vocabulary)
        self.total_length(length, prompts)
        padding = [prompt + [0] * (length - len(prompt)) for prompt in prompts]
        return packed(prompts, padding, is_one_row(inputs)), [length] * len(prompts)

    def _open_source(
        self,
        preprocessor: GPT2CausalLMPreprocessor,
        given: dict[str, Any],
        lengths: Sequence[int],
        stops: Sequence[int],
        settings: CallSettings,
        ends: RowEnds,
        times: int,
    ) -> Opened:
        """Return the source of a stream: the decoding loop, or the texts of replaced methods.

        ``times``: rows of each prompt.
        """
        vocabulary = self.backbone.config.vocab_size
        ids, mask = rows_of(given, vocabulary)
        prompts, starts = prompts_of(ids, mask)
        limits = []
        for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            self._check_room(
                f"prompt {index}" if len(prompts) > 1 else "the prompt", prompt, length
            )
            most = length if settings.max_new_tokens is None else settings.max_new_tokens
            limits.append(min(length, len(prompt) + most))
        ids, starts = _times(ids, times), _times(starts, times)
        prompts, limits = _times(prompts, times), _times(limits, times)
        of_the_whole = [
            chosen(self, "make_generate_function"),
            chosen(self, "generate_step"),
            chosen(preprocessor, "generate_postprocess"),
        ]
        if all(map(is_default, of_the_whole)) and not runs_its_own_loop(settings.sampler):
            with settings.applied():
                generation: Generation = self.start_generation(prompts, limits, stops)
            return Opened(generation, prompts, limits, stops)
        width = max(limits)
        room = [
            [*row[start : start + width], *[0] * width][:width]
            for row, start in zip(ids, starts, strict=True)
        ]
        inputs = packed(prompts, room, is_one_row(given["token_ids"]) and times == 1)
        best = settings.best_beams

        async def whole() -> list[tuple[list[int], str]]:
            output = await self._generate_packed(inputs, stops, settings, ends)
            output = without_prompts(output, inputs, vocabulary)
            texts = await self._postprocess(preprocessor, output, stops)
            texts = [texts] if isinstance(texts, str) else list(texts)
            new = [
                [token for token, is_new in zip(*row, strict=True) if is_new]
                for row in zip(*rows_of(output, vocabulary), strict=True)
            ]
            beams = len(new) // len(prompts)  # of each, best first
            rows = list(zip(new, texts, strict=True))
            return [row for first in range(0, len(rows), beams) for row in rows[first:][:best]]

        return Opened(WholeTexts(whole), _times(prompts, best), _times(limits, best), stops)

    def _check_room(self, which: str, prompt: Sequence[int], length: int) -> None:
        """Raise ContextLengthError if no token can follow ``prompt``."""
        if len(prompt) < length:
            return
        full = length == self.backbone.config.n_positions
        fits = "fill the model's context" if full else f"reach max_length {length}"
        raise ContextLengthError(
            f"{which}'s {len(prompt)} tokens (start token included) {fits}, so nothing can "
            f"follow: at most {length - 1} may"
        )


_TAKES = (
    "stream takes one prompt (a str, a list of ids, or a dict with one row of ids) or several (a "
    "list of str, rows of ids, or a dict with several rows)"
)


def _times(values: Sequence[T], count: int) -> list[T]:
    """Return each of ``values`` ``count`` times."""
    return [value for value in values for _ in range(count)]


def _has_texts(inputs: Any) -> bool:
    """Return whether ``inputs`` is a text or a list with one."""
    if isinstance(inputs, list | tuple):
        return any(isinstance(each, str) for each in inputs)
    return isinstance(inputs, str)


def _is_row(inputs: Sequence[Any]) -> bool:
    """Return whether a list is the ids of one prompt."""
    return not _has_texts(inputs) and is_one_row(inputs)
