"""Comparison of engines: no figures for wrong or failed runs. Runs without any engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.compare import EngineFailed, Marks, Plan, compare, decode_rate
from benchmarks.peers.engines import BROWSER, FIREFOX, NATIVE, Engine, chosen
from benchmarks.peers.models import Work, checker
from benchmarks.peers.results import report

PLAN = Plan(new_tokens=20, rounds=3, seconds=1.0)


class Fake:
    """Emits 0, 1, 2, … at ``pace`` seconds a token; ``order`` notes who ran."""

    def __init__(self, name: str, pace: float = 0.01, order: list[str] | None = None) -> None:
        self.engine = Engine(name, name, "CPU", "none")
        self.pace, self.order, self.runs = pace, [] if order is None else order, 0

    def load(self) -> dict[str, str]:
        return {self.engine.name: "1"}

    def run(self, count: int) -> Marks:
        self.order.append(self.engine.name)
        self.runs += 1
        return [(0.5 + self.pace * n, [n]) for n in range(count)]


class Failing(Fake):
    """Fails in its ``at``-th run."""

    def __init__(self, at: int) -> None:
        super().__init__("failing")
        self.at = at

    def run(self, count: int) -> Marks:
        if self.runs + 1 == self.at:
            raise EngineFailed("no adapter")
        return super().run(count)


class Wavering(Fake):
    """Gives another last token in each run."""

    def run(self, count: int) -> Marks:
        marks = super().run(count)
        return [*marks[:-1], (marks[-1][0], [1000 + self.runs])]


class Rows(Fake):
    """Two rows, a token of each at a time."""

    def run(self, count: int) -> Marks:
        return [(seconds, [n, n]) for seconds, (n,) in super().run(count)]


def counts_up(engine: Engine, tokens: list[int]) -> bool | str:
    return tokens == list(range(len(tokens))) or "wrong"


def accept(engine: Engine, tokens: list[int]) -> bool | str:
    return True


def test_rates_leave_out_what_came_with_the_prefill() -> None:
    assert decode_rate([(2.0, [1, 2]), (3.0, [3]), (4.0, [4, 5])]) == pytest.approx(1.5)


def test_engines_are_timed_in_turns_after_all_are_warm() -> None:
    order: list[str] = []
    found = compare([Fake("a", order=order), Fake("b", order=order)], PLAN, counts_up)
    assert order[-6:] == ["a", "b"] * 3
    assert order[:-6] == sorted(order[:-6])
    for outcome in found:
        assert outcome.equal is True
        assert outcome.prefill_seconds == [0.5] * 3
        assert outcome.decode_rates == pytest.approx([100.0] * 3)


def test_wrong_tokens_show_no_speed() -> None:
    (found,) = compare([Fake("a")], PLAN, lambda engine, tokens: "token 1 is 0 instead of 7")
    assert found.equal == "token 1 is 0 instead of 7"
    assert not found.decode_rates and not found.prefill_seconds


def test_tokens_that_change_from_run_to_run_show_no_speed() -> None:
    (found,) = compare([Wavering("a")], PLAN, accept)
    assert "other tokens" in str(found.equal)
    assert not found.decode_rates


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_failure_is_the_reason_and_stops_nobody_else(at: int) -> None:
    failed, fine = compare([Failing(at), Fake("fine")], PLAN, counts_up)
    assert failed.equal == "no adapter"
    assert not failed.decode_rates and not failed.prefill_seconds
    assert fine.equal is True and len(fine.decode_rates) == 3


def test_a_slow_engine_gives_fewer_tokens_but_at_least_four() -> None:
    slow, slower = compare([Fake("slow", 0.1), Fake("slower", 9.0)], PLAN, counts_up)
    assert 8 <= slow.tokens <= 10
    assert slower.tokens == 4


def test_a_row_tells_where_its_tokens_were_others() -> None:
    work = Work("124M", Path(), [""], [[0]], [[0, 1, 7, 3]], 0.01)
    outcomes = compare([Fake("a"), Fake("b")], Plan(4, 3, 1.0), accept)
    outcomes[1].accepted = [0, 1, 7, 3]
    found = report(outcomes, work, PLAN, {})
    assert [row["first_other_token"] for row in found["rows"]] == [2, None]
    assert [row["equal_outputs"] for row in found["rows"]] == [True, True]
    assert "commit" in found["versions"]


def test_a_batch_counts_and_checks_the_tokens_of_all_rows() -> None:
    work = Work("124M", Path(), ["", ""], [[0], [1]], [[10, 11, 12], [20, 21, 22]], 0.01)
    check, engine = checker(work), Fake("a").engine
    assert check(engine, [10, 20, 11, 21]) is True
    assert check(engine, [10, 20, 11, 7]) == "row 2: token 2 is 7 instead of 21"
    (outcome,) = compare([Rows("a")], Plan(20, 3, 1.0, batch=2), accept)
    assert outcome.tokens == 20 and len(outcome.accepted) == 40
    assert outcome.decode_rates == pytest.approx([200.0] * 3)
    assert report([outcome], work, Plan(20, 3, 1.0, batch=2), {})["work"]["batch"] == 2


def test_engines_of_one_prompt_are_not_in_a_batch() -> None:
    assert "wllama" in {engine.name for engine in chosen(BROWSER, None, cuda=False, batch=1)}
    assert "wllama" not in {engine.name for engine in chosen(BROWSER, None, cuda=False, batch=2)}
    with pytest.raises(SystemExit, match="wllama: one prompt at a time"):
        chosen(BROWSER, "tfjs,wllama", cuda=False, batch=8)


def test_names_of_engines_are_unique_and_cuda_waits_to_be_asked() -> None:
    for engines in (NATIVE, FIREFOX):
        names = [engine.name for engine in engines]
        assert len(set(names)) == len(names)
    assert not any(engine.cuda for engine in chosen(NATIVE, None, cuda=False, batch=1))
    with pytest.raises(SystemExit, match="no engine x"):
        chosen(NATIVE, "x", cuda=False, batch=1)
