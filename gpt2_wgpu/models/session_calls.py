"""``SessionCalls``: ``generate`` and ``stream`` of a session."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import RLock
from typing import Any, Literal, Unpack, overload

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import BusyError, DisposedTensorError, InvalidArgumentError
from gpt2_wgpu.models.call_arguments import named
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.control import Cancellation, Control
from gpt2_wgpu.models.generate_arguments import (
    Callback,
    SamplerLike,
    SessionOptions,
    StopTokens,
)
from gpt2_wgpu.models.generation_details import (
    GenerationDetails,
    check_details,
    logprobs_of_details,
    new_step_logprobs,
)
from gpt2_wgpu.models.overrides import chosen, is_default
from gpt2_wgpu.models.piece_stream import Opened
from gpt2_wgpu.models.row_ends import RowEnds, limit_reached
from gpt2_wgpu.models.row_text import RowText
from gpt2_wgpu.models.session_cache import SessionCache
from gpt2_wgpu.models.session_generation import SessionGeneration
from gpt2_wgpu.models.session_source import SessionSource
from gpt2_wgpu.models.session_text import text_of
from gpt2_wgpu.models.session_tokens import SessionTokens
from gpt2_wgpu.models.step_logprobs import StepLogprobs
from gpt2_wgpu.models.text_stream import TextStream
from gpt2_wgpu.samplers import runs_its_own_loop
from gpt2_wgpu.text import TokenReader
from gpt2_wgpu.validation import instance
from gpt2_wgpu.webgpu import sync

_STEPS = ("make_generate_function", "generate_step", "build_cache")  # that a session replaces
_BUSY = "this session is generating: wait for the call's end, or close its stream"


class SlidingStream(TextStream):
    """Stream of a session that goes on when the context is full."""

    def _finish(self, row: RowText) -> str:
        stopped = row.stats.token_ids and row.stats.token_ids[-1] in self._stops
        return row.finish("stop" if stopped else self._control.reason or "length")


class SessionCalls(NotCopyable):
    """Tokens and cache of a session, with the calls that add tokens."""

    def __init__(self, model: CausalLM, tokens: SessionTokens, cache: SessionCache) -> None:
        self.model = model
        self._tokens, self._cache = tokens, cache
        self._weights_version = model.backbone.weights_version  # that the cache was computed with
        self._lock = RLock()  # of tokens, cache and flags; never held while something waits
        self._busy = self._closed = False
        self._before: SessionTokens | None = None  # tokens from before the call that runs
        self._failed = False  # whether that call failed, so that they come back
        self._source: weakref.ref[SessionSource] | None = None
        self._control = Control()  # of the last call

    @overload
    def generate(
        self,
        max_new_tokens: int | None = ...,
        *,
        return_details: Literal[True],
        **options: Unpack[SessionOptions],
    ) -> GenerationDetails: ...
    @overload
    def generate(
        self,
        max_new_tokens: int | None = ...,
        *,
        return_details: bool = ...,
        **options: Unpack[SessionOptions],
    ) -> str | Any: ...  # Any: the list of ids of a model without a preprocessor
    @named("session.generate")
    def generate(
        self,
        max_new_tokens: int | None = None,
        *,
        stop_token_ids: StopTokens = "auto",
        stop_texts: Sequence[str] | None = None,
        sampler: SamplerLike | None = None,
        seed: int | None = None,
        return_details: bool = False,
        top_logprobs: int | None = 0,
        callback: Callback | None = None,
        time_limit: float | None = None,
        cancellation: Cancellation | None = None,
        wait: bool = True,
    ) -> Any:
        """Generate tokens after the session's, and keep them; blocks (``generate_async``).

        Two calls in succession with the same sampler and seed give the text of one.

        Args:
            max_new_tokens: limit of the new tokens; default: that of generation_config.json, else
                the free positions. Required with ``context_policy="slide"``.
            stop_token_ids: see ``GPT2CausalLM.generate``, as for all other arguments. A stop token,
                and the token that completes a stop text, stay in the session: ``rewind`` removes
                them.
            stop_texts: see there.
            sampler: see there; not one that runs its own loop (beam, contrastive).
            seed: see there.
            return_details: see there.
            top_logprobs: see there.
            callback: see there; the row is 0.
            time_limit: see there.
            cancellation: see there.
            wait: see there; a session itself never waits for its other call.

        Returns:
            The new text; the new ids for a model without a preprocessor; with ``return_details`` a
            ``GenerationDetails``.

        Raises:
            ContextLengthError: there is no free position, with ``context_policy="error"``.
            InvalidArgumentError: an invalid argument, or the session has no tokens.
            BusyError: another call is running. After an error the session has its tokens of before.
        """
        generating = self.generate_async(
            max_new_tokens,
            stop_token_ids=stop_token_ids,
            stop_texts=stop_texts,
            sampler=sampler,
            seed=seed,
            return_details=return_details,
            top_logprobs=top_logprobs,
            callback=callback,
            time_limit=time_limit,
            cancellation=cancellation,
            wait=wait,
        )
        return sync(generating, "generate_async(...)")

    @overload
    async def generate_async(
        self,
        max_new_tokens: int | None = ...,
        *,
        return_details: Literal[True],
        **options: Unpack[SessionOptions],
    ) -> GenerationDetails: ...
    @overload
    async def generate_async(
        self,
        max_new_tokens: int | None = ...,
        *,
        return_details: bool = ...,
        **options: Unpack[SessionOptions],
    ) -> str | Any: ...  # Any: the list of ids of a model without a preprocessor
    @named("session.generate")
    async def generate_async(
        self,
        max_new_tokens: int | None = None,
        *,
        stop_token_ids: StopTokens = "auto",
        stop_texts: Sequence[str] | None = None,
        sampler: SamplerLike | None = None,
        seed: int | None = None,
        return_details: bool = False,
        top_logprobs: int | None = 0,
        callback: Callback | None = None,
        time_limit: float | None = None,
        cancellation: Cancellation | None = None,
        wait: bool = True,
    ) -> Any:
        """Async counterpart of :meth:`generate`."""
        model, preprocessor = self.model, self.model.preprocessor
        max_new_tokens = self._limit(max_new_tokens)
        check_details(return_details, top_logprobs, model)
        stop_texts, time_limit = model.ends_of_call(stop_texts, time_limit)
        ends = RowEnds(preprocessor, None, stop_texts, callback, return_details)
        if self._tokens.policy == "slide" and max_new_tokens is None:
            raise InvalidArgumentError(
                'give max_new_tokens: with context_policy="slide" a text has no other end'
            )
        length = len(self._tokens.ids) + (max_new_tokens or 0)
        if return_details and self._tokens.policy == "slide" and length > self._tokens.max_length:
            raise InvalidArgumentError(
                f"return_details needs all {length} tokens within the session's "
                f"{self._tokens.max_length}, since a text that slides has no log-probabilities "
                "of one context: omit it, or give fewer max_new_tokens"
            )
        stops = model.resolve_stop_tokens(stop_token_ids)
        control = Control(time_limit, cancellation)
        instance("wait", wait, bool)
        turn = model.turns.turn(control, wait)
        logprobs = new_step_logprobs(top_logprobs if return_details else None, model)
        source = self._begin(max_new_tokens, stops, sampler, seed, control, logprobs)
        prompt, watch = list(self._tokens.ids), ends.watch()
        try:
            await turn.take()
            while not (source.done or control.reason):
                (new,) = await source.advance()
                kept = None if watch is None else watch(0, new)
                source.kept += new[:kept]
                if kept is not None:
                    break
        except BaseException:
            self._failed = True
            source.close()
            raise
        finally:
            source.close()
            turn.give_back()
        ids, seconds = list(source.kept), ends.seconds
        text = (
            None
            if preprocessor is None
            else text_of(TokenReader(preprocessor.tokenizer, stop_texts), ids)
        )
        if not return_details:
            return ids if text is None else text
        (found,) = await logprobs_of_details(model, [prompt], [ids], top_logprobs, logprobs)
        reason = limit_reached(len(prompt) + len(ids), model.backbone.config.n_positions)
        if ends.matches(ids):
            reason = "stop_text"
        elif ids and ids[-1] in stops:
            reason = "stop"
        elif max_new_tokens is None or len(ids) < max_new_tokens:
            reason = ends.ended_by or control.reason or reason
        first = ends.first_token_after.get(0)
        return GenerationDetails(text, ids, *found, reason, len(prompt), first, seconds)

    @named("session.stream")
    def stream(
        self,
        max_new_tokens: int | None = None,
        *,
        stop_token_ids: StopTokens = "auto",
        stop_texts: Sequence[str] | None = None,
        sampler: SamplerLike | None = None,
        seed: int | None = None,
        top_logprobs: int | None = None,
        time_limit: float | None = None,
        cancellation: Cancellation | None = None,
        wait: bool = True,
    ) -> TextStream:
        """Generate text piece by piece; arguments and errors as in ``lm.stream``.

        The session keeps the tokens of the pieces that were read, until the stream ends or is
        closed; until then it is busy.

        Returns:
            A stream, for ``for`` and ``async for``.
        """
        begun, model = time.perf_counter(), self.model
        preprocessor, max_new_tokens = self._preprocessor(), self._limit(max_new_tokens)
        stop_texts, time_limit = model.ends_of_call(stop_texts, time_limit)
        reader = TokenReader(preprocessor.tokenizer, stop_texts)
        logprobs = new_step_logprobs(top_logprobs, model)
        slides = self._tokens.policy == "slide"
        if slides and logprobs is not None and not StepLogprobs.is_possible(model):
            raise InvalidArgumentError(
                'top_logprobs with context_policy="slide" are those of the model\'s own steps, but '
                "call_with_cache is replaced: omit them"
            )
        stops = model.resolve_stop_tokens(stop_token_ids)
        control = Control(time_limit, cancellation)
        instance("wait", wait, bool)
        turn = model.turns.turn(control, wait)
        source = self._begin(max_new_tokens, stops, sampler, seed, control, logprobs)
        ids, most = list(self._tokens.ids), self._tokens.max_length
        limit = len(ids) + (max_new_tokens or most)
        opened = Opened(source, [ids], [limit if slides else min(limit, most)], stops)
        kind = SlidingStream if slides else TextStream
        stream = kind(None, lambda _: opened, [reader], begun, model, turn, control, logprobs)
        source.kept = stream.stats.token_ids
        return stream

    stream_async = stream

    def _limit(self, max_new_tokens: int | None) -> int | None:
        limits = self.model.generation_limits
        return limits.get("max_new_tokens") if max_new_tokens is None else max_new_tokens

    def _begin(
        self,
        max_new_tokens: int | None,
        stops: Sequence[int],
        sampler: SamplerLike | None,
        seed: int | None,
        control: Control,
        logprobs: StepLogprobs | None,
    ) -> SessionSource:
        """Begin a call."""
        model = self.model
        settings = model._settings(sampler, seed, max_new_tokens, control)
        settings = replace(settings, max_new_tokens=None, logprobs=logprobs)
        if runs_its_own_loop(settings.sampler):
            raise InvalidArgumentError(
                f"{type(settings.sampler).__name__} replaces the sampling loop, which a session "
                "continues: use another sampler, or lm.generate"
            )
        if settings.seeds is not None:
            raise InvalidArgumentError("a session has one row: give one seed")
        for name in _STEPS:
            if not is_default(chosen(model, name)):
                raise InvalidArgumentError(f"{name} is replaced, which sessions do not call")
        slides = self._tokens.policy == "slide"
        if slides and model.logits_processors:
            raise InvalidArgumentError(
                'context_policy="slide" changes the tokens that logits_processors see: compile '
                "without them"
            )

        def new_generation(before: SessionGeneration | None, left: int | None) -> SessionGeneration:
            tokens = self._tokens
            most = tokens.max_length
            limit = most if left is None else min(most, len(tokens.ids) + left)
            new = partial(
                SessionGeneration,
                session_cache=self._cache,
                prompt=tokens.prompt,
                length=most,
                dropped=tokens.dropped,
                before=before,
            )
            with settings.applied():
                return model.start_generation([tokens.ids], [limit], stops, new)

        with self._idle():
            if not self._tokens.ids:
                raise InvalidArgumentError("the session has no tokens: append some first")
            before = self._tokens.copied()
            self._drop(self._tokens.room_for(max_new_tokens))
            source = SessionSource(
                new_generation, self._slide if slides else None, max_new_tokens, self._end
            )
            self._busy, self._failed, self._before = True, False, before
            self._source, self._control = weakref.ref(source), control
        return source

    def _slide(self, ids: Sequence[int]) -> None:
        """Take all tokens of a generation that is full, and drop the oldest."""
        self._tokens.ids = list(ids)
        self._drop(self._tokens.room_for(None))

    def _drop(self, count: int) -> None:
        if count:
            self._tokens.drop(count)
            self._cache.truncate(0)

    def _end(self, ids: list[int]) -> None:
        """End a call: take the tokens that are kept, or those from before a call that failed."""
        with self._lock:
            before = self._before
            if self._failed and before is not None:
                if self._tokens.dropped != before.dropped:
                    self._cache.truncate(0)
                self._tokens, ids = before, before.ids
            self._tokens.ids, self._before = ids, None
            self._cache.truncate(max(0, len(ids) - 1))
            self._release()

    def _release(self) -> None:
        """End what kept the session busy; free the memory of one that was closed meanwhile."""
        with self._lock:
            self._busy = False
            if self._closed:
                self._cache.close()

    @contextmanager
    def _idle(self) -> Iterator[None]:
        """Keep calls and :meth:`close` of other threads away.

        BusyError while a call runs, DisposedTensorError after ``close``. What was computed with
        weights that were replaced is forgotten.
        """
        if self._busy:
            self.model.device.memory.drain()  # the call's stream may have been forgotten
        with self._lock:
            if self._closed:
                raise DisposedTensorError("this session is closed: begin another one")
            if self._busy:
                raise BusyError(_BUSY)
            if self._weights_version != self.model.backbone.weights_version:
                self._weights_version = self.model.backbone.weights_version
                self._cache.truncate(0)
            yield

    def _preprocessor(self) -> Any:
        return self.model._require_preprocessor("a session then has ids only")
