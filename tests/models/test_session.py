"""Sessions: what is known is not computed again, and every token is that of a text from scratch."""

from __future__ import annotations

from array import array
from random import Random

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models import session_cache
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.models.session_calls import SessionCalls
from gpt2_wgpu.models.session_source import SessionSource
from gpt2_wgpu.nn import PAGE
from gpt2_wgpu.webgpu import Recording
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.models.session_models import PROMPT, go_on, model_of, new_ids

pytestmark = pytest.mark.usefixtures("no_leak")

DTYPES = list(WEIGHT_FORMATS)
SAMPLERS = {
    "random": lambda: samplers.Random(seed=5, temperature=0.9),
    "penalised": lambda: samplers.Random(presence_penalty=0.8, repetition_penalty=1.2, seed=5),
    "greedy": lambda: samplers.Greedy(),
}


@pytest.fixture(scope="module", params=DTYPES)
def any_lm(request, device):
    with model_of(request.param, "float16" if request.param == "float16" else "float32") as lm:
        yield lm


@pytest.fixture(scope="module")
def lm(device):
    with model_of("float32") as lm:
        lm.compile("greedy")
        yield lm


@pytest.fixture(autouse=True)
def _spoiled(monkeypatch):
    """New pages hold NaN or huge values, so that a position that is not written is noticed."""
    made = session_cache.new_page

    def poisoned(cache):
        page = made(cache)
        page.device.queue.upload(page.storage, 0, array("I", [0x7E007E00]) * page.size)
        return page

    monkeypatch.setattr(session_cache, "new_page", poisoned)


@pytest.fixture
def prefilled(monkeypatch):
    """Positions that are prefilled."""
    positions = []
    run = Prefill.run

    async def counted(self, rows, start=0):
        positions.extend(range(start, start + len(rows[0])))
        await run(self, rows, start)

    monkeypatch.setattr(Prefill, "run", counted)
    return positions


# --- the same tokens -----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.chromium_cases("sampler")
def test_two_calls_give_the_text_of_one(any_lm, sampler):
    new = SAMPLERS[sampler]
    expected = new_ids(any_lm, PROMPT, 40, new())
    with any_lm.session(PROMPT) as session:
        assert go_on(session, 20, new()) + go_on(session, 20, new()) == expected
        assert session.token_ids == PROMPT + expected
        assert len(session) == len(PROMPT) + 40


@pytest.mark.chromium_cases("any_lm")
def test_a_fork_goes_on_as_from_scratch(any_lm):
    first, second = (lambda: samplers.Random(seed=7)), (lambda: samplers.Random(seed=8))
    with any_lm.session(PROMPT) as session, any_lm.session(PROMPT) as scratch:
        go_on(session, 40, first())
        with session.fork() as fork:
            there = go_on(fork, 30, second())
            here = go_on(session, 30, first())
            assert here != there
            assert go_on(fork, 5, first()) != []  # each writes pages of its own
            go_on(scratch, 40, first())
            assert go_on(scratch, 30, second()) == there
            session.rewind(30)
            assert go_on(session, 30, second()) == there
            assert len(fork) == len(PROMPT) + 75


@pytest.mark.chromium_cases("any_lm")
def test_appended_and_rewound_tokens_are_those_of_a_longer_prompt(any_lm):
    sampler = SAMPLERS["penalised"]
    other = [5, 6, 7, 8, 9]
    with any_lm.session(PROMPT[:12]) as session:
        session.append(PROMPT[12:20])
        session.append(PROMPT[20:])
        assert go_on(session, 9, sampler()) == new_ids(any_lm, PROMPT, 9, sampler())
        session.rewind(9)
        session.append(other)
        assert go_on(session, 9, sampler()) == new_ids(any_lm, PROMPT + other, 9, sampler())
        session.rewind(9 + len(other) + 20)
        assert go_on(session, 9, sampler()) == new_ids(any_lm, PROMPT[:10], 9, sampler())


def test_a_text_of_several_pages(any_lm, prefilled):
    sampler = lambda: samplers.Random(seed=3)  # noqa: E731
    prompt = [(5 * t + t * t) % 101 for t in range(PAGE + 20)]
    with any_lm.session(prompt) as session:
        found = [token for count in (1, 50, 12) for token in go_on(session, count, sampler())]
        assert session.cached_tokens == len(prompt) + 62
    assert prefilled == [*range(len(prompt) - 1)]
    assert found == new_ids(any_lm, prompt, 63, sampler())


def test_text(text_lm):
    with text_lm.session("The wolf") as session:
        assert session.token_ids[0] == text_lm.preprocessor.tokenizer.start_token_id
        first = session.generate(5)
        assert session.text == "The wolf" + first
        session.append(" and")
        assert session.text == f"The wolf{first} and"
        kept = session.edit("The wolf is")
        assert kept == 3
        text = session.generate(5)
        assert text == text_lm.generate("The wolf is", max_new_tokens=5, strip_prompt=True)
        session.text = "A"
        assert len(session) == 2
        assert session.generate(5) == text_lm.generate("A", max_new_tokens=5, strip_prompt=True)


# --- nothing is computed twice -------------------------------------------------------------------


def test_known_tokens_are_not_computed_again(lm, prefilled):
    with lm.session(PROMPT) as session:
        go_on(session, 8)
        assert prefilled == [*range(29)]
        prefilled.clear()
        go_on(session, 8)
        assert prefilled == []
        session.append([1, 2, 3])
        go_on(session, 4)
        assert prefilled == [45, 46, 47]  # the newest token, and all appended but the last
        prefilled.clear()
        session.rewind(4)
        go_on(session, 4)
        assert prefilled == []
        changed = [*session.token_ids[:40], 100, 99, 98]
        assert session.edit(changed) == 40
        assert session.token_ids == changed
        go_on(session, 4)
        assert prefilled == [40, 41]
        prefilled.clear()
        assert session.edit(session.token_ids[:20]) == 20
        go_on(session, 4)
        assert prefilled == []


def test_a_second_call_records_nothing(lm, monkeypatch):
    recordings = []
    enter = Recording.__enter__
    monkeypatch.setattr(Recording, "__enter__", lambda self: recordings.append(self) or enter(self))
    lm.compile("greedy")  # forget what is recorded
    with lm.session(PROMPT) as session:
        go_on(session, 8)
        assert recordings
        recordings.clear()
        go_on(session, 30)
        with session.fork() as fork:
            go_on(fork, 4)
    assert recordings == []


# --- memory --------------------------------------------------------------------------------------


def test_forks_share_pages_until_they_write(lm, device):
    def held():
        return gw.memory(device).by_kind["cache"]

    before = held()
    with lm.session(PROMPT) as session:
        go_on(session, PAGE + 20)
        pages = held() - before
        assert pages > 0
        with session.fork() as fork:
            assert held() - before == pages
            go_on(fork, 1)
            assert held() - before == pages * 3 // 2  # of its two pages the second
            go_on(fork, 1)
            session.rewind(PAGE)
            assert held() - before == pages  # its own second page has gone
        assert held() - before == pages // 2
    assert held() == before


def test_memory_stays_flat(lm, device):
    session = lm.session(PROMPT)
    go_on(session, 4)
    before = None
    for turn in range(100):
        session.append([turn % 100])
        if turn % 10 == 0:
            go_on(session, 2)
            with session.fork() as fork:
                go_on(fork, 1)
        session.rewind(len(session) - 34)
        if turn == 20:
            before = gw.memory(device)
    after = gw.memory(device)
    assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)
    session.close()


def test_memory_stays_flat_over_a_thousand_edits(lm, device):
    """Each replaces a random end of the text, and every 25th is continued."""
    source, before = Random(3), None
    with lm.session(PROMPT) as session:
        for turn in range(1000):
            kept = source.randrange(60)
            session.edit([*session.token_ids[:kept], *source.choices(range(101), k=90 - kept)])
            if turn % 25 == 24:
                go_on(session, 2)
            if turn == 99:
                before = gw.memory(device)
        after = gw.memory(device)
    for figure in ("num_tensors", "num_bytes", "num_buffers", "num_bytes_in_gpu", "peak_bytes"):
        assert getattr(after, figure) == getattr(before, figure), figure


def test_a_forgotten_session_is_freed(lm):
    go_on(lm.session(PROMPT), 4)  # no_leak looks


def test_a_call_that_fails_removes_no_tokens_of_other_threads(lm, monkeypatch):
    begin, close, appended = SessionCalls._begin, SessionSource.close, []

    def begin_late(self, *arguments):
        self.append([5])  # as another thread can until the call begins
        return begin(self, *arguments)

    def close_early(self):
        close(self)
        if not appended:
            session.append([6, 7])  # as another thread can from here on
            appended.append(True)

    def fail(*_):
        raise KeyError("callback")

    monkeypatch.setattr(SessionCalls, "_begin", begin_late)
    monkeypatch.setattr(SessionSource, "close", close_early)
    with lm.session(range(90), max_length=100, context_policy="slide") as session:
        with pytest.raises(KeyError):
            session.generate(60, stop_token_ids=None, callback=fail)
        assert session.token_ids == [*range(90), 5, 6, 7]
