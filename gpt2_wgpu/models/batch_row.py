"""Rows of a continuous batch: the state of each, and the new ids that its caller reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import BusyError, InvalidArgumentError
from gpt2_wgpu.models.control import ABORTED
from gpt2_wgpu.models.evaluation import TokenLogprobs
from gpt2_wgpu.models.overrides import chosen, is_default
from gpt2_wgpu.models.row_ends import limit_reached
from gpt2_wgpu.models.row_plan import RowPlan
from gpt2_wgpu.models.step_logprobs import StepLogprobs
from gpt2_wgpu.models.turns import Caller
from gpt2_wgpu.nn import History
from gpt2_wgpu.validation import integer

MOST_ROWS = 1 << 12  # of a batch
_REPLACEABLE = ("make_generate_function", "generate_step", "build_cache", "call_with_cache")


class RowState(NotCopyable):
    """A row as the batch has it: it does not keep the caller's `BatchRow` alive."""

    def __init__(self, plan: RowPlan) -> None:
        self.prompt_ids = list(plan.prompt)
        self.token_ids: list[int] = []
        self.logprobs: StepLogprobs | None = None
        if plan.most_logprobs is not None:
            self.logprobs = StepLogprobs(plan.most_logprobs)
            self.logprobs.begin(1)
        self.finish_reason: str | None = None
        self.plan = plan
        self.caller = Caller.current()  # who waits for it
        self.in_flight = 0  # steps submitted and not yet collected
        self.error: Exception | None = None
        self.changed = asyncio.Event()

    @property
    def history(self) -> History:
        """Prompt and new ids."""
        return History([*self.prompt_ids, *self.token_ids], len(self.prompt_ids))

    @property
    def position(self) -> int:
        """Number of ids, with the prompt."""
        return len(self.prompt_ids) + len(self.token_ids)

    @property
    def room(self) -> int:
        """Number of steps until the row is full, besides those in flight; 0 after its end."""
        return 0 if self.finish_reason else self.plan.limit - self.position - self.in_flight

    def end(self, reason: str, error: Exception | None = None) -> None:
        """End the row, unless it has ended."""
        if self.finish_reason is None:
            self.finish_reason, self.error = reason, error
            self.changed.set()

    def extend(self, new: Sequence[int]) -> int:
        """Add new ids up to a stop token or the limit → how many were added."""
        if self.finish_reason is not None:
            return 0
        stops = self.plan.stop_token_ids
        at = next((i for i, token in enumerate(new, 1) if token in stops), None)
        self.token_ids += new[:at]
        if at is not None:
            self.end("stop")
        elif self.position >= self.plan.limit:
            self.end(limit_reached(self.position, self.plan.context))
        if new:
            self.changed.set()
        return len(new[:at])


class BatchRow(NotCopyable):
    """One text of a continuous batch: an async iterator of lists of new ids.

    A list has the ids since the last one, with a stop token at the end. An error of the row, or of
    the batch, is raised when all ids before it have been read. One task reads a row: BusyError for
    another one that reads it meanwhile. A row need not be read; one that is not referenced any more
    ends, as by :meth:`cancel`.
    """

    def __init__(self, state: RowState) -> None:
        self._state = state
        self._read = 0  # of token_ids
        self._is_awaited = False

    def __str__(self) -> str:
        return f"BatchRow of {len(self.prompt_ids)} + {len(self.token_ids)} tokens"

    @property
    def prompt_ids(self) -> list[int]:
        """Ids of the prompt."""
        return self._state.prompt_ids

    @property
    def token_ids(self) -> list[int]:
        """All new ids so far."""
        return self._state.token_ids

    @property
    def finish_reason(self) -> str | None:
        """The reason of the end; None before it.

        "stop", "length", "context" (the model's context is full), "aborted" (by :meth:`cancel`, or
        the batch was closed) or "error".
        """
        return self._state.finish_reason

    def logprobs(self, first: int = 0) -> TokenLogprobs:
        """Return how the new ids so far, from ``first`` on, were predicted.

        As in the details of ``generate``. InvalidArgumentError for a row without ``top_logprobs``.
        """
        state, top = self._state, self._state.plan.top_logprobs
        if state.logprobs is None or top is None:
            raise InvalidArgumentError(
                "this row has no log-probabilities: give submit top_logprobs, 0 for no alternatives"
            )
        count = len(state.token_ids)
        found = state.logprobs.part(0, integer("first", first, 0, count), count, top)
        assert found is not None  # steps append them before the ids
        return found

    def cancel(self) -> None:
        """End the row and free its place in the batch; for the event loop of the batch.

        Idempotent; no effect after its end.
        """
        self._state.end(ABORTED)

    def __del__(self) -> None:
        # In any thread: nothing waits for the row, so that this only sets its finish reason.
        state = getattr(self, "_state", None)
        if state is not None:
            state.end(ABORTED)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[int]:
        if self._is_awaited:
            raise BusyError(
                "another task waits for the next ids of this row: read a row in one task, and see "
                "its token_ids in others"
            )
        state = self._state
        while self._read == len(state.token_ids):
            if state.error is not None:
                raise state.error
            if state.finish_reason is not None:
                raise StopAsyncIteration
            state.changed.clear()
            self._is_awaited = True
            try:
                await state.changed.wait()
            finally:
                self._is_awaited = False
        new = state.token_ids[self._read :]
        self._read = len(state.token_ids)
        return new


def check_default_steps(lm: Any) -> None:
    """Raise InvalidArgumentError for a model whose steps a continuous batch would not run."""
    replaced = [name for name in _REPLACEABLE if not is_default(chosen(lm, name))]
    if replaced or lm.logits_processors:
        what = f"replaces {replaced[0]}" if replaced else "has logits processors"
        raise InvalidArgumentError(
            f"this model {what}, which a ContinuousBatch does not call: use generate"
        )
