"""Turns of the generations of one model: one generation runs, the others wait in a queue.

A turn belongs to the thread or asyncio task that asked for it. Generations that this one, or a task
it has started, begins meanwhile take part in its turn and do not wait, as they may be what it waits
for: two streams read alternately, ``generate`` in a callback, ``asyncio.gather`` in the loop over a
stream. A stream of a task or thread that has ended has no turn until it is read again; nor one that
others wait for and that has not been read for a while, since its reader may wait for them, too.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from threading import Lock

from gpt2_wgpu.errors import BusyError
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.webgpu.waiting import is_blocking

POLL_SECONDS = 0.05  # for what wakes no waiter: cancellation, time limit, end of a task or thread
IDLE_SECONDS = 1.0  # after its last piece a stream lends its turn to those that wait


class Caller:
    """A thread or asyncio task, with the one that started it."""

    def __init__(self, parent: Caller | None) -> None:
        while parent is not None and not parent.is_alive:
            parent = parent.parent
        self.parent: Caller | None = parent
        self.thread = threading.current_thread()
        task = _current_task()
        self._task = None if task is None else weakref.ref(task)

    @classmethod
    def current(cls) -> Caller:
        """Return the running one."""
        found = _caller.get()
        if found is None or not found.is_running:
            found = cls(found)
            _caller.set(found)
        return found

    @property
    def is_running(self) -> bool:
        """Return whether this code is run by it."""
        task = None if self._task is None else self._task()
        if (task is None) != (self._task is None):
            return False
        return self.thread is threading.current_thread() and task is _current_task()

    @property
    def is_alive(self) -> bool:
        """Return whether it has not ended."""
        if self._task is None:
            return self.thread.is_alive()
        task = self._task()
        return task is not None and not task.done()

    def is_of(self, other: Caller) -> bool:
        """Return whether it is ``other``, or started by it or by one that it started."""
        caller: Caller | None = self
        while caller is not None and caller is not other:
            caller = caller.parent
        return caller is not None


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no running event loop
        return None


# A task begins with the value of the one that started it.
_caller: ContextVar[Caller | None] = ContextVar("gpt2_wgpu_caller", default=None)


class Turns:
    """The running generations of a model, and the waiting ones in their order."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: list[Turn] = []  # each, except the first, within the one before
        self._waiting: list[Turn] = []
        self._lent: list[Turn] = []  # ran before those that run now

    def turn(
        self, control: Control | None = None, wait: bool = True, others: Sequence[Caller] = ()
    ) -> Turn:
        """Return the turn of a generation of this thread or task; it begins with ``take``.

        ``others``: further ones that wait for it.
        """
        return Turn(self, control or Control(), wait, others)

    def queue(self, turn: Turn) -> bool:
        """Let ``turn`` wait unless it can run → whether it runs."""
        with self._lock:
            if turn not in self._running and turn not in self._waiting:
                self._waiting.append(turn)
            self._admit()
            return turn in self._running

    def leave(self, turn: Turn) -> bool:
        """Stop waiting → whether ``turn`` waited; it may have begun meanwhile."""
        with self._lock:
            waited = turn in self._waiting
            if waited:
                self._waiting.remove(turn)
            self._admit()
            return waited

    def ended(self) -> None:
        """Admit others after the end of a turn; also in finalisers, which must not wait."""
        if self._lock.acquire(blocking=False):
            try:
                self._admit()
            finally:
                self._lock.release()
        # Else a waiter finds it at its next look.

    def awaited(self, turn: Turn) -> bool:
        """Return whether others wait for the end of ``turn``, which runs."""
        with self._lock:
            return any(not each.is_within(turn) for each in self._waiting)

    def would_block(self, turn: Turn) -> bool:
        """Return whether a turn before ``turn`` needs its thread, which waits for it.

        False if ``turn`` has begun meanwhile.
        """
        with self._lock:
            if turn in self._running:
                return False
            before = self._waiting
            if turn in before:
                before = before[: before.index(turn)]
            thread = turn.reader.thread
            return any(
                thread in (each.caller.thread, each.reader.thread)
                for each in self._running + before
            )

    def pass_within_lent(self, turn: Turn) -> bool:
        """Let ``turn``, which would block, run now if it is within a lent one → whether it does.

        Only with turns of the same thread, where none of them goes on meanwhile.
        """
        with self._lock:
            thread = turn.reader.thread
            passes = any(turn.is_within(each) for each in self._lent) and all(
                each.caller.thread is each.reader.thread is thread for each in self._running
            )
            if passes and turn in self._waiting:
                self._waiting.remove(turn)
                self._running.append(turn)
            return passes

    def _admit(self) -> None:
        known = self._lent + self._running
        self._running = [turn for turn in self._running if turn.is_held]
        self._lent = [turn for turn in known if turn.is_lent and turn.caller.is_alive]
        for turn in list(self._waiting):
            if not self._running or turn.is_within(self._running[-1]):
                self._waiting.remove(turn)
                self._running.append(turn)
                turn.wake()


class Turn:
    """Turn of one generation: take it before any work, always give it back at the end."""

    def __init__(
        self, turns: Turns, control: Control, wait: bool, others: Sequence[Caller]
    ) -> None:
        self.caller = Caller.current()
        self.reader = self.caller  # the last caller of take(), which may be another thread
        self._others = others
        self._turns = turns
        self._control = control
        self._waits = wait
        self._is_over = False
        self._idle_since: float | None = None  # in between the reads of a stream
        self.wake: Callable[[], object] = lambda: None

    @property
    def is_held(self) -> bool:
        """Return whether a turn that was taken excludes others."""
        return not self._is_over and self.caller.is_alive and not self.is_lent

    @property
    def is_lent(self) -> bool:
        """Return whether others need not wait for the next read of its stream."""
        since = None if self._is_over else self._idle_since
        return since is not None and time.monotonic() - since > IDLE_SECONDS

    def rest(self) -> None:
        """Note that its stream is not read now; the next :meth:`take` goes on."""
        self._idle_since = time.monotonic()

    @property
    def is_awaited(self) -> bool:
        """Return whether others wait for the end of this turn, which runs."""
        return self._turns.awaited(self)

    def is_within(self, turn: Turn) -> bool:
        """Return whether the one that has ``turn``, or one that it started, waits for this."""
        return any(
            caller.is_of(holder)
            for caller in (self.caller, self.reader, *self._others)
            for holder in (turn.caller, turn.reader)
        )

    async def take(self) -> bool:
        """Wait for the turn, unless it has begun.

        Returns:
            True; False if it was given back, or ``control`` ended the wait.

        Raises:
            BusyError: another generation runs, and this one shall not wait or cannot.
        """
        if self._is_over:
            return False
        self.reader = Caller.current()
        if not self.caller.is_alive:
            self.caller = self.reader
        self._idle_since = None
        if self._turns.queue(self):
            return True
        try:
            while not self._turns.queue(self):
                if self._is_over or self._control.reason is not None:
                    return False
                self._check_waiting()
                await self._wait()
            return True
        finally:
            self._turns.leave(self)

    def _check_waiting(self) -> None:
        """Raise BusyError if this turn must not wait, or would never come."""
        would_block = is_blocking() and self._turns.would_block(self)
        if would_block and self._turns.pass_within_lent(self):
            return
        if (would_block or not self._waits) and not self._turns.leave(self):
            return  # it has begun meanwhile
        if not self._waits:
            raise BusyError(
                "the model is generating for another thread or task, and wait is False: try again "
                "when that has ended"
            )
        if would_block:
            raise BusyError(
                "the model is generating for another task of this thread, which this blocking call "
                "would stop: await generate_async, or use `async for`"
            )

    async def _wait(self) -> None:
        """Wait until the turn begins, at most for a moment."""
        if is_blocking():
            begun = threading.Event()
            self.wake = begun.set
            if not self._turns.queue(self):
                begun.wait(POLL_SECONDS)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise BusyError(
                "the model is generating for another task, and only asyncio's tasks can wait for it"
            ) from None
        woken = loop.create_future()

        def wake() -> None:
            with suppress(RuntimeError):  # a loop that was closed with this task in it
                loop.call_soon_threadsafe(begin)

        def begin() -> None:
            if not woken.done():
                woken.set_result(None)

        self.wake = wake
        if not self._turns.queue(self):
            await asyncio.wait([woken], timeout=POLL_SECONDS)

    def give_back(self) -> None:
        """End the turn. Idempotent."""
        self._is_over = True
        self._turns.ended()
