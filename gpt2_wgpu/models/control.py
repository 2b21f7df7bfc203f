"""Control of a running call: its cancellation and its time limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gpt2_wgpu.sampling_parameters import TIME_LIMIT_SECONDS
from gpt2_wgpu.validation import instance

ABORTED, TIME_LIMIT = "aborted", "time_limit"  # finish reasons


class Cancellation:
    """Cancellation of calls of ``generate`` and ``stream`` that have it as an argument.

    :meth:`cancel` may be called from any thread or task, and from a signal handler. A call ends
    before its next submit, with the tokens so far and the finish reason "aborted"; one that waits
    for its turn ends without any. A cancelled object ends every later call, too.
    """

    def __init__(self) -> None:
        self.cancelled = False

    def __repr__(self) -> str:
        return f"<Cancellation, {'cancelled' if self.cancelled else 'not cancelled'}>"

    def cancel(self) -> None:
        """End the calls. Idempotent; returns at once."""
        self.cancelled = True


class CallEndedError(Exception):
    """End of a call within a computation, caught by the loop that runs it."""


class Control:
    """Cancellation and time limit of one call, which begins now.

    InvalidArgumentError for a ``time_limit`` that is not a positive number of seconds, or a
    ``cancellation`` of another type.
    """

    def __init__(
        self, time_limit: float | None = None, cancellation: Cancellation | None = None
    ) -> None:
        if time_limit is not None:
            time_limit = TIME_LIMIT_SECONDS.check("time_limit", time_limit)
        if cancellation is not None:
            instance("cancellation", cancellation, Cancellation)
        self._end = None if time_limit is None else time.perf_counter() + time_limit
        self._cancellation = cancellation
        self._reason: str | None = None

    def cancel(self) -> None:
        """End this call alone."""
        self._reason = self._reason or ABORTED

    @property
    def reason(self) -> str | None:
        """The finish reason of a call that has to end, the first one; None: it goes on."""
        if self._reason is None:
            if self._cancellation is not None and self._cancellation.cancelled:
                self._reason = ABORTED
            elif self._end is not None and time.perf_counter() >= self._end:
                self._reason = TIME_LIMIT
        return self._reason

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply to the computations of this thread or asyncio task that call `check_control`."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


def check_control() -> None:
    """Raise `CallEndedError` if the running call has to end."""
    control = _current.get()
    if control is not None and control.reason is not None:
        raise CallEndedError


_current: ContextVar[Control | None] = ContextVar("control of a call", default=None)
