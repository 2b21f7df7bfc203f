"""Cancellation and time limits of ``generate`` and ``stream``, and the memory after any end."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import DeviceLostError, InvalidArgumentError
from gpt2_wgpu.models import control
from gpt2_wgpu.models.decode_run import DecodeRun
from tests.memory import tiny
from tests.memory.tiny import ENDLESS, TIMEOUT_S

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = ["abc", "d"]


@pytest.fixture
def clock(monkeypatch):
    """Time of ``time_limit``: seconds that a test passes by hand."""
    now = [100.0]
    monkeypatch.setattr(control.time, "perf_counter", lambda: now[0])
    return now


class PythonGreedy(samplers.Sampler):
    """A sampler with its own loop, as KerasHub's users write it; passes 10 seconds a token."""

    def __init__(self, clock):
        super().__init__()
        self.clock, self.tokens = clock, 0

    def __call__(
        self, next, prompt, cache=None, index=0, mask=None, stop_token_ids=None,
        hidden_states=None, model=None,
    ):  # fmt: skip
        rows = [list(map(int, row)) for row in prompt]
        for place in range(index, len(rows[0])):
            logits, _, cache = next(rows, cache, place)
            self.clock[0] += 10
            self.tokens += 1
            newest = gw.ops.argmax(logits, axis=-1).numpy()
            for row, real, token in zip(rows, mask, newest, strict=True):
                row[place] = row[place] if real[place] else int(token)
        return rows


SAMPLERS = {
    "greedy": "greedy",
    "sampled": {"class_name": "RandomSampler", "config": {"seed": 3}},
    "beams": samplers.BeamSampler(3),
    "contrastive": samplers.ContrastiveSampler(k=3, alpha=0.4),
}


def counted(patch, monkeypatch, stop_at):
    """Call ``patch`` at the ``stop_at``-th step of any kind of decoding."""
    from gpt2_wgpu.models.search_step import SearchStep

    steps = [0]

    def hook(cls, name):
        method = getattr(cls, name)

        async def hooked(self, *args):
            steps[0] += 1
            if steps[0] == stop_at:
                patch()
            return await method(self, *args)

        monkeypatch.setattr(cls, name, hooked)

    hook(DecodeRun, "result")
    hook(SearchStep, "run")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("end", ["aborted", "time_limit"])
def test_a_call_that_ends_early_has_the_tokens_so_far(lm, monkeypatch, clock, sampler, end):
    options = {"sampler": SAMPLERS[sampler], "return_details": True, **ENDLESS}
    whole = lm.generate(PROMPTS, **options)
    cancellation = gw.Cancellation()

    def stop():
        cancellation.cancel() if end == "aborted" else clock.__setitem__(0, 200.0)

    counted(stop, monkeypatch, 3)
    found = lm.generate(PROMPTS, cancellation=cancellation, time_limit=50, **options)
    for row, of_whole in zip(found, whole, strict=True):
        assert 0 < len(row.token_ids) < 24
        assert row.finish_reason == end
        assert len(row.logprobs) == len(row.token_ids)
        if sampler != "beams":  # whose best text may be another one later
            assert row.token_ids == of_whole.token_ids[: len(row.token_ids)]


def test_a_stream_of_searches_that_end_early_has_the_texts_so_far(lm, monkeypatch, clock):
    options = {"sampler": SAMPLERS["contrastive"], **ENDLESS}
    whole = lm.generate(PROMPTS, strip_prompt=True, **options)
    counted(lambda: clock.__setitem__(0, 200.0), monkeypatch, 9)
    stream = lm.stream(PROMPTS, time_limit=50, **options)
    found = dict(stream)
    assert [stats.finish_reason for stats in stream.stats] == ["time_limit"] * 2
    for row, text in enumerate(whole):
        assert 0 < len(found[row]) < len(text)
        assert text.startswith(found[row].rstrip("\ufffd"))


@pytest.mark.parametrize("sampler", [*SAMPLERS, "all beams"])
def test_a_cancelled_call_computes_nothing(lm, monkeypatch, sampler):
    def fail(*_):
        raise AssertionError("work for a cancelled call")

    monkeypatch.setattr("gpt2_wgpu.models.prefill.half_block_work", fail)
    cancellation = gw.Cancellation()
    cancellation.cancel()
    beams = samplers.BeamSampler(3, return_all_beams=True)
    chosen = beams if sampler == "all beams" else SAMPLERS[sampler]
    texts = lm.generate(PROMPTS, sampler=chosen, cancellation=cancellation, **ENDLESS)
    assert texts == [text for text in PROMPTS for _ in range(3 if sampler == "all beams" else 1)]


@pytest.mark.native("NumPy")
def test_a_sampler_with_its_own_loop_ends_without_text(lm, clock):
    sampler = PythonGreedy(clock)
    details = lm.generate("abc", sampler=sampler, time_limit=35, return_details=True, **ENDLESS)
    assert (details.text, details.finish_reason) == ("abc", "time_limit")
    assert sampler.tokens == 4


@pytest.mark.parametrize("of", ["generate", "stream", "beams"])
def test_a_call_can_end_in_the_prefill(lm, monkeypatch, of):
    """A long prompt takes many submits."""
    from gpt2_wgpu.models import prefill

    cancellation, work = gw.Cancellation(), prefill.half_block_work

    def stop(*given):
        cancellation.cancel()
        return work(*given)

    monkeypatch.setattr(prefill, "half_block_work", stop)
    monkeypatch.setattr(prefill._Chunk, "suspend", lambda self: 1 / 0)  # its end
    options = {"cancellation": cancellation, **ENDLESS}
    if of == "stream":
        assert list(lm.stream("The wolf", **options)) == []
    else:
        sampler = SAMPLERS["beams"] if of == "beams" else "greedy"
        assert lm.generate("The wolf", sampler=sampler, **options) == "The wolf"
    assert cancellation.cancelled


@pytest.mark.native("threads")
def test_generate_is_cancelled_by_another_thread(lm):
    cancellation, reached, cancelled = gw.Cancellation(), Event(), Event()
    seen = []

    def callback(*new):
        seen.append(new)
        if len(seen) == 3:
            reached.set()
            assert cancelled.wait(TIMEOUT_S)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            lm.generate, "abc", cancellation=cancellation, callback=callback,
            return_details=True, **ENDLESS,
        )  # fmt: skip
        assert reached.wait(TIMEOUT_S)
        cancellation.cancel()
        cancelled.set()
        details = call.result(TIMEOUT_S)
    assert details.finish_reason == "aborted"
    assert 3 <= len(details.token_ids) < 24
    assert details.text == lm.generate("abc", **ENDLESS | {"max_new_tokens": len(seen)})


def test_generate_is_cancelled_by_another_task(lm):
    cancellation, seen = gw.Cancellation(), []

    async def main():
        call = lm.generate_async(
            "abc", cancellation=cancellation, callback=lambda *new: seen.append(new), **ENDLESS
        )
        task = asyncio.create_task(call)
        while not seen:
            await asyncio.sleep(0)
        cancellation.cancel()
        return await task

    text = asyncio.run(main())
    assert 0 < len(seen) < 24
    assert text == lm.generate("abc", **ENDLESS | {"max_new_tokens": len(seen)})


@pytest.mark.parametrize("taken", [0, 1, 5])
@pytest.mark.parametrize("end", ["aborted", "time_limit", "cancellation"])
def test_a_stream_that_ends_early(lm, clock, taken, end):
    whole = lm.generate("abc", **ENDLESS)[3:]
    cancellation = gw.Cancellation()
    before = tiny.counters(lm.device)
    stream = lm.stream("abc", time_limit=50, cancellation=cancellation, **ENDLESS)
    text = "".join(next(stream) for _ in range(taken))
    if end == "time_limit":
        clock[0] += 51
    elif end == "cancellation":
        cancellation.cancel()
    else:
        stream.cancel()
        assert tiny.counters(lm.device) == before  # at once
    text += "".join(stream)
    assert stream.stats.finish_reason == ("time_limit" if end == "time_limit" else "aborted")
    assert whole.startswith(text)
    decode = lm.preprocessor.tokenizer.decode
    assert text == decode(stream.stats.token_ids) == stream.details().text
    stream.cancel()
    assert tiny.counters(lm.device) == before


def test_cancel_gives_text_that_was_held_back(lm):
    """As the beginning of a stop text."""
    whole = lm.generate("abc", **ENDLESS)[3:]
    stream = lm.stream("abc", stop_texts=[whole[2:5] + "§"], **ENDLESS)
    text = next(stream)
    while len(stream.stats.token_ids) < 4:
        text += next(stream)
    held = lm.preprocessor.tokenizer.decode(stream.stats.token_ids)[len(text) :]
    stream.cancel()
    assert (next(stream, ""), next(stream, None)) == (held, None)


@pytest.mark.parametrize("bad", [0, -1, "3", True, float("nan")])
def test_bad_arguments(lm, bad):
    for call in (lm.generate, lm.stream):
        with pytest.raises(InvalidArgumentError, match="time_limit must be a number > 0"):
            call("abc", time_limit=bad)
        with pytest.raises(InvalidArgumentError, match="cancellation"):
            call("abc", cancellation=bad)


COMMON = "done", "cancellation", "time_limit", "error", "task", "lost"
OF = "generate", "stream", "streams"
ENDS: list[Any] = [(of, end) for of in OF for end in COMMON]
ENDS += [
    pytest.param(of, "interrupt", marks=pytest.mark.native("an event loop's end")) for of in OF
]
ENDS += [("generate", "callback")]
ENDS += [(of, end) for of in ("stream", "streams") for end in ("close", "cancel")]


@pytest.mark.parametrize(("of", "end"), ENDS)
def test_memory_is_as_before_after_any_end(lm, monkeypatch, clock, of, end):
    lm.generate(PROMPTS, **ENDLESS)
    before = tiny.counters(lm.device)
    cancellation, seen = gw.Cancellation(), []
    acts = {
        "cancellation": cancellation.cancel,
        "time_limit": lambda: clock.__setitem__(0, 200.0),
        "callback": lambda: False,
        "error": lambda: raised(ZeroDivisionError),
        "interrupt": lambda: raised(KeyboardInterrupt),
        "lost": lambda: monkeypatch.setattr(DecodeRun, "result", lost),
    }
    options = {"cancellation": cancellation, "time_limit": 50, **ENDLESS}

    def look(*new, stream=None):
        seen.append(new)
        if len(seen) == 5 and end in acts:
            return acts[end]()
        if len(seen) == 5 and end in ("close", "cancel"):
            getattr(stream, end)()
        return None

    async def run():
        if of == "generate":
            await lm.generate_async(PROMPTS, callback=look, **options)
            return
        async with lm.stream(PROMPTS if of == "streams" else PROMPTS[0], **options) as stream:
            async for piece in stream:
                look(piece, stream=stream)
                if end == "task":
                    await asyncio.sleep(0)

    async def cancelled():
        task = asyncio.create_task(run())
        while len(seen) < 3:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    raises = {"error": ZeroDivisionError, "interrupt": KeyboardInterrupt, "lost": DeviceLostError}
    if end in raises:
        with pytest.raises(raises[end]):
            asyncio.run(run())
    else:
        asyncio.run(cancelled() if end == "task" else run())
    assert len(seen) >= 3
    assert end == "done" or len(seen) < 48
    assert tiny.counters(lm.device) == before
    assert not lm.turns._running
    monkeypatch.undo()
    assert lm.generate(PROMPTS, **ENDLESS)


def raised(kind):
    raise kind


async def lost(self):
    """A device that is lost again at once: test_device_loss has the recovery."""
    raise DeviceLostError("lost twice")
