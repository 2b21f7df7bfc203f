"""Decoding loop of a batch, with recovery from device loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import BusyError, DeviceLostError, NumericalError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.call_settings import Watch
from gpt2_wgpu.models.control import CallEndedError, Control
from gpt2_wgpu.models.decode_run import DecodeRun, Result
from gpt2_wgpu.models.hooks import applied, not_finite, open_hooks
from gpt2_wgpu.models.kept_runs import DecodeInputs
from gpt2_wgpu.models.lookup_run import LookupRun
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.models.prompt_lookup import DraftStats
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.models.self_test import require_right_results
from gpt2_wgpu.models.step_logprobs import StepLogprobs
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import (
    ALL_EXCLUDED,
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    History,
    SamplingOptions,
)
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.webgpu.waiting import can_submit_ahead

ENDED = 1 + ALL_EXCLUDED  # by the caller; the GPU does not know it


class Generation(NotCopyable):
    """Decoding loop: rows of token ids, extended by sampled tokens until each is stopped or full.

    ``prompts``: at least one id each (checked by the caller); ``limits``: total length at which a
    row is full. Rows may differ in length: each has its own position. ``seeds``: one a row, so that
    what a row draws does not depend on its place in the batch (default: the options' seed for all).
    Call :meth:`advance` until :attr:`done`, and always :meth:`close` at the end.

    A device that is lost on the way is replaced, once in a while: the tokens so far are computed
    again as they were at first (prompts in the same chunks, the rest in steps), and since a row's
    random numbers depend on nothing but seed and position, the text goes on as if nothing had
    happened.

    ``logprobs``: gets the log-probabilities of the new tokens, if steps can compute them.
    """

    def __init__(
        self,
        model: CachedModel,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
        candidates: Candidates | None = None,
        seeds: Sequence[int] | None = None,
        choice: TokenChoice | None = None,
        check: bool = False,
        prompt_lookup: int = 0,
        control: Control | None = None,
        draft_model: CachedModel | None = None,
        logprobs: StepLogprobs | None = None,
    ) -> None:
        backbone = model.backbone
        # Check ids: out of range, the GPU would silently read outside the embedding.
        rows_of_ids(prompts, backbone.config.vocab_size, "prompt")
        self._model = model
        self._backbone = backbone
        self._weights_version = backbone.weights_version
        self._rows = [list(prompt) for prompt in prompts]
        self._prompts = [len(prompt) for prompt in prompts]
        self._limits = list(limits)
        self._options = options
        self._stop_token_ids = list(stop_token_ids)
        self._candidates = candidates or Candidates(backbone.config.vocab_size)
        self._seeds = seeds
        self._choice = choice or TokenChoice()
        self._finished = [
            FULL if len(row) >= limit else LIVE
            for row, limit in zip(self._rows, limits, strict=True)
        ]
        self._check = check  # compare recorded steps with eager ones
        self._pace = Pace(backbone.device)
        self._control = control or Control()
        self._hooks = open_hooks()  # also where another task or thread advances
        self._prompt_lookup = prompt_lookup  # max length of drafts
        self._draft_model = draft_model  # None: drafts are taken from the text
        self.drafts = DraftStats()
        if prompt_lookup or not StepLogprobs.is_possible(model):
            logprobs = None  # several tokens a step, or logits of the caller
        self._logprobs = logprobs
        if logprobs is not None:
            logprobs.begin(len(self._rows))
        self._run: DecodeRun | LookupRun | None = None
        self._lock = Lock()
        self._advancing = self._closing = self._failed = False
        self._kept_runs = model.kept_runs  # those of now: compile() begins new ones

    def __str__(self) -> str:
        return f"Generation of {len(self._rows)} rows, {sum(map(len, self._rows))} tokens so far"

    @property
    def done(self) -> bool:
        """Return whether all rows are finished."""
        return LIVE not in self._finished

    def ended(self, row: int) -> bool:
        """Return whether ``row`` gets no more tokens."""
        return self._finished[row] != LIVE

    def stopped(self, row: int) -> bool:
        """Return whether ``row`` ended with a stop token (else it is live, or full)."""
        return self._finished[row] == STOPPED

    def end(self, row: int) -> None:
        """End ``row`` on behalf of the caller: it gets no more tokens."""
        self._finished[row] = ENDED

    async def advance(self) -> list[list[int]]:
        """Run some steps in one submit; return the new ids of each row, including a stop token.

        After :meth:`close`, also one by another task or thread, and after the end of its
        ``control``, there are no new ids.

        Raises:
            NumericalError: the logits of a row are not finite, or exclude every token.
            DeviceLostError: the device was lost twice within a short time.
            DisposedTensorError: the weights were replaced.
            OutOfGPUMemoryError: GPU memory is exhausted.
            BusyError: another caller is advancing.
        """
        with self._lock:
            if self._advancing:
                raise BusyError("this generation is advancing already: one caller at a time")
            self._advancing = True
        try:
            while not (self.done or self._closing or self._control.reason):
                self._backbone.check_weights(self._weights_version)
                if self._run is not None and self._run.device is not self._backbone.device:
                    self._free()  # another generation has replaced a lost device already
                device = self._backbone.device
                try:
                    with self._control.applied(), applied(self._hooks):
                        return await self._advance()
                except CallEndedError:
                    break
                except DeviceLostError:
                    lost = device if self._run is None else self._run.device
                    self._free()
                    await recover(self._backbone, lost)
        except BaseException:
            self._failed = True
            raise
        finally:
            with self._lock:
                self._advancing = False
            if self._closing:
                self._free(keep=True)
        return [[] for _ in self._rows]

    async def _advance(self) -> list[list[int]]:
        if self._run is None:
            backbone = self._backbone
            await require_right_results(backbone.device, backbone.dtype, backbone.cache_dtype)
            # A finished row stays in the batch without room: the kernel does not change it.
            limits = [
                limit if finished == LIVE else len(row)
                for row, limit, finished in zip(
                    self._rows, self._limits, self._finished, strict=True
                )
            ]
            inputs = DecodeInputs(
                self._histories(),
                limits,
                self._options,
                self._stop_token_ids,
                self._candidates,
                self._seeds,
                max(*self._limits, *self._prompts),
                top_logprobs=None if self._logprobs is None else self._logprobs.top,
            )
            self._run = await self._new_run(inputs)
        run = self._run
        # One submit is always in flight when this returns, so that the GPU works while the caller
        # looks at the tokens; best is to hand it the next one before this one ends, or at least to
        # encode it. Eager steps run when they are asked for: each may be the last.
        if not run.in_flight:
            await self._submit(run)
        ahead = run.is_recorded and can_submit_ahead()
        if ahead:
            await self._submit(run)
        elif isinstance(run, DecodeRun):
            ahead = await self._submit_later(run)
        result = await run.result()
        self._pace.took(result.seconds, result.steps)
        new = self._collect(result)
        if run.is_recorded and not ahead:
            await self._submit(run)
        return new

    async def _submit_later(self, run: DecodeRun) -> bool:
        """Encode more steps, submitted when the submit in flight is done → whether it may be so.

        Not where a check or moves of rows come before them: these submit themselves.
        """
        if not run.is_recorded or self._check or run.compacts_next(self._steps_of_rows()):
            return False
        steps = self._next_steps(run)
        if steps > 0:
            await run.submit(steps, later=True)
        return True

    def _histories(self) -> list[History]:
        return [History(*row) for row in zip(self._rows, self._prompts, strict=True)]

    async def _new_run(self, inputs: DecodeInputs) -> DecodeRun | LookupRun:
        def rows() -> list[list[int]]:
            return [list(row) for row in self._rows]

        if not self._prompt_lookup:
            return await DecodeRun.start(self._model, inputs, self._choice, rows)
        most = self._backbone.config.n_positions  # with room for a draft after the last token
        inputs = replace(inputs, length=min(inputs.length + self._prompt_lookup, most))
        where = self._model, inputs, self._prompt_lookup, rows, self.drafts
        return await LookupRun.start(*where, self._draft_model)

    async def _submit(self, run: DecodeRun | LookupRun) -> None:
        """Submit more steps, if rows have room for them."""
        steps = self._next_steps(run)
        if steps > 0:
            await run.compact(self._steps_of_rows())
            await run.submit(steps, self._check)

    def _next_steps(self, run: DecodeRun | LookupRun) -> int:
        """Return the number of steps of the next submit."""
        room = min(self._room() - run.in_flight, run.steps_at_once)
        return self._pace.steps(room) if run.is_recorded else 1

    def _steps_of_rows(self) -> list[int | None]:
        """Return the number of steps of each row that has ended; None while it is live."""
        rows = zip(self._rows, self._prompts, self._finished, strict=True)
        return [None if end == LIVE else len(row) - prompt for row, prompt, end in rows]

    def close(self) -> None:
        """Free the GPU memory, immediately or after the submit in flight. Idempotent."""
        with self._lock:
            self._closing = True
            if self._advancing:
                return
        self._free(keep=True)

    def close_later(self) -> None:
        """Close at the next safe point: for finalisers."""
        self.defer(self.close)

    def defer(self, action: Callable[[], None]) -> None:
        """Call ``action`` at the next safe point."""
        self._backbone.device.memory.defer(action)

    def _free(self, keep: bool = False) -> None:
        """End the run; ``keep``: for the next generation, unless it or the model has ended."""
        with self._lock:  # of two threads that close, one gets the run
            run, self._run = self._run, None
        if run is not None:
            keep = keep and not self._failed and not self._backbone.disposed
            run.close(self._kept_runs if keep else None)

    def _room(self) -> int:
        """Return the number of steps until the last live row is full."""
        rows = zip(self._rows, self._limits, self._finished, strict=True)
        return max(
            (limit - len(row) for row, limit, finished in rows if finished == LIVE), default=0
        )

    def _collect(self, result: Result) -> list[list[int]]:
        """Return the tokens between each row's end and its new position."""
        new: list[list[int]] = [[] for _ in self._rows]
        for place, index in enumerate(result.rows):
            if self._finished[index] == ENDED:
                continue
            row, position = self._rows[index], result.position[place]
            first = place * RECENT
            positions = range(len(row), position + 1)
            new[index] = [result.recent[first + p % RECENT] for p in positions]
            row += new[index]
            if self._logprobs is not None and result.odds is not None:
                self._logprobs.append(index, result.odds, place, positions)
            finished = result.finished[place]
            if self._finished[index] == LIVE:
                self._finished[index] = finished
            if finished == NOT_FINITE:
                raise not_finite(
                    f"the logits of row {index} at position {position} are not finite",
                    "a logits processor or replaced method returned them, ",
                )
            if finished == ALL_EXCLUDED:
                raise NumericalError(
                    f"every token of row {index} is excluded at position {position}: "
                    f"{self._options.rules.cause_of_exclusion()}; leave one"
                )
        return new


async def run_to_the_end(
    generation: Generation,
    rows: Sequence[list[int]],
    watch: Watch | None = None,
    control: Control | None = None,
) -> None:
    """Extend ``rows`` by all new ids of ``generation``, and close it.

    ``watch``: ends rows; see call_settings.py. ``control``: that of ``generation``.
    """
    try:
        while not generation.done and (control is None or control.reason is None):
            for index, new in enumerate(await generation.advance()):
                kept = None if watch is None else watch(index, new)
                if kept is not None:
                    generation.end(index)
                rows[index].extend(new[:kept])
    finally:
        generation.close()
