"""Ctrl-C during generation, at the most critical moments."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gpt2_wgpu.cli.main import main
from gpt2_wgpu.cli.stream_printer import StreamPrinter
from gpt2_wgpu.cli.terminal import Terminal, recorded_interrupts
from gpt2_wgpu.models.search_step import SearchStep


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """Python's own handler before each test, and what was there after it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Fragile:
    """Ctrl-C comes while it is collected: an exception raised there is lost."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class Stream:
    """Gives these pieces, Ctrl-C where one is None, and has ended by itself after the last."""

    def __init__(self, *pieces: str | None) -> None:
        self.stats: Any = SimpleNamespace(finish_reason=None, token_ids=[])
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if piece is None:
                Fragile()
            else:
                yield piece
        self.stats.finish_reason = "length"


def printed(stream: Any) -> StreamPrinter:
    printer = StreamPrinter(stream, "", Terminal(), json=False, echo=False)
    printer.run(at_once=False)
    return printer


def test_it_ends_a_search_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the text of the best beam so far."""
    run, steps = SearchStep.run, []

    async def interrupted(step: SearchStep, *args: Any) -> Any:
        steps.append(step)
        if len(steps) == 4:
            signal.raise_signal(signal.SIGINT)
        return await run(step, *args)

    monkeypatch.setattr(SearchStep, "run", interrupted)
    options = ["--beams", "2", "-n", "40"]
    assert main(["generate", "-m", "fairytales", *options, "Once upon"]) == 130
    out, err = capsys.readouterr()
    assert len(steps) == 4
    assert out.startswith("Once upon")
    assert "+ 4 tokens" in err and "stopped: Ctrl-C" in err


def test_an_interrupt_that_would_be_lost_is_noted() -> None:
    with recorded_interrupts() as interrupted:
        assert not interrupted()
        Fragile()
        assert interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # a second one ends the process
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_without_an_interrupt_all_is_as_it_was() -> None:
    with recorded_interrupts() as interrupted:
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert not interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_somebody_else_made_of_interrupts_stays() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with recorded_interrupts() as interrupted:
        Fragile()
        assert not interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_leave_signals_alone() -> None:
    failures = []

    def use() -> None:
        try:
            with recorded_interrupts() as interrupted:
                assert not interrupted()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not failures


def test_a_story_ends_with_the_piece_that_came_with_the_interrupt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = printed(Stream("a", None, "b", "c"))
    assert (printer.text, printer.interrupted) == ("ab", True)
    assert capsys.readouterr().out == "ab"


def test_a_story_that_has_ended_is_not_interrupted() -> None:
    printer = printed(Stream("a", "b", None))
    assert (printer.text, printer.interrupted) == ("ab", False)
