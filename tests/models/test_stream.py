"""Streams: pieces, early ends, concurrent streams, and no leaks."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.models.pace import Pace
from gpt2_wgpu.webgpu import AdapterInfo

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(autouse=True)
def greedy(tales):
    tales.compile(sampler="greedy")


def test_pieces_join_to_what_generate_gives(tales):
    stream = tales.stream("The wolf", max_new_tokens=40, stop_token_ids=None)
    pieces = list(stream)
    length = stream.stats.prompt_tokens + 40
    whole = tales.generate("The wolf", max_length=length, stop_token_ids=None)
    assert "The wolf" + "".join(pieces) == whole
    assert all(pieces)
    assert len(pieces) > 10


def test_stats(tales):
    stream = tales.stream("The wolf", max_new_tokens=25, stop_token_ids=None)
    assert stream.stats.finish_reason is None
    ids = []
    for _ in stream:
        ids += stream.last_token_ids
    stats = stream.stats
    assert (stats.finish_reason, stats.new_tokens) == ("length", 25)
    assert ids == stats.token_ids
    assert 0 < stats.seconds_to_first_token <= stats.seconds
    assert stats.tokens_per_second > 0
    assert next(stream, None) is None


@pytest.mark.parametrize(("tokens", "measured"), [(1, False), (2, False), (3, True)])
def test_a_speed_takes_three_tokens(tales, tokens, measured):
    """The first two submits are in flight together: their tokens give no speed."""
    stream = tales.stream("The wolf", max_new_tokens=tokens, stop_token_ids=None)
    assert list(stream)
    assert (stream.stats.tokens_per_second is not None) is measured


def test_async_for(tales):
    expected = list(tales.stream("A queen", max_new_tokens=20))

    async def collect():
        return [piece async for piece in tales.stream_async("A queen", max_new_tokens=20)]

    assert asyncio.run(collect()) == expected


def test_two_streams_at_once_do_not_mix(tales):
    prompts = ["The wolf", "A queen lived"]
    expected = ["".join(tales.stream(prompt, max_new_tokens=30)) for prompt in prompts]
    streams = [tales.stream(prompt, max_new_tokens=30) for prompt in prompts]
    found = ["", ""]
    alive = [0, 1]
    while alive:
        for index in list(alive):
            piece = next(streams[index], None)
            if piece is None:
                alive.remove(index)
            else:
                found[index] += piece
    assert found == expected


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_frees_everything(tales, taken):
    before = gw.memory()
    stream = tales.stream("The wolf")
    for _ in range(taken):
        next(stream)
    assert (gw.memory().num_bytes > before.num_bytes) == (taken > 0)  # allocates when asked
    stream.close()
    stream.close()
    assert gw.memory().num_bytes == before.num_bytes
    assert stream.stats.finish_reason == "aborted"
    assert next(stream, None) is None


def test_a_dropped_stream_and_a_raise_in_the_loop_free_everything(tales):
    before = gw.memory()
    stream = tales.stream("The wolf")
    next(stream)
    del stream
    gc.collect()
    assert gw.memory().num_bytes == before.num_bytes
    with pytest.raises(KeyError), tales.stream("The wolf") as stream:
        for _ in stream:
            raise KeyError
    assert gw.memory().num_bytes == before.num_bytes


def test_a_cancelled_task_frees_everything(tales):
    before = gw.memory()

    async def forever(begun):
        async with tales.stream_async("The wolf", stop_token_ids=None) as stream:
            async for _ in stream:
                begun.set()

    async def cancel():
        begun = asyncio.Event()
        task = asyncio.create_task(forever(begun))
        await begun.wait()
        assert gw.memory().num_bytes > before.num_bytes
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancel())
    assert gw.memory().num_bytes == before.num_bytes


def test_a_stream_outlives_the_scope_it_was_made_in(tales):
    expected = "".join(tales.stream("The wolf", max_new_tokens=10))
    with gw.tidy():
        stream = tales.stream("The wolf", max_new_tokens=10)
    assert "".join(stream) == expected


def test_stop_texts(tales):
    text = "".join(tales.stream("The wolf", max_new_tokens=60, stop_token_ids=None))
    stop = text[20:26]
    stream = tales.stream(
        "The wolf", max_new_tokens=60, stop_token_ids=None, stop_texts=["§§", stop]
    )
    assert "".join(stream) == text[: text.find(stop)]
    assert stream.stats.finish_reason == "stop_text"
    never = tales.stream("The wolf", max_new_tokens=60, stop_token_ids=None, stop_texts=["§§"])
    assert "".join(never) == text


@pytest.fixture
def free_ids(tales):
    """The ids that follow "The wolf" when nothing stops them."""
    stream = tales.stream("The wolf", max_new_tokens=40, stop_token_ids=None)
    list(stream)
    return stream.stats.token_ids


def test_a_stop_token_stops(tales, free_ids):
    place = next(i for i in range(9, 40) if free_ids[i] not in free_ids[:i])
    stream = tales.stream("The wolf", max_new_tokens=40, stop_token_ids=[free_ids[place]])
    text = "".join(stream)
    assert stream.stats.finish_reason == "stop"
    assert stream.stats.token_ids == free_ids[: place + 1]
    assert text == tales.preprocessor.tokenizer.decode(free_ids[: place + 1])


def test_the_end_token_stops_by_default_and_special_tokens_are_not_shown(
    tales, free_ids, monkeypatch
):
    tokenizer = tales.preprocessor.tokenizer
    place = next(i for i in range(9, 40) if free_ids[i] not in free_ids[:i])
    special = free_ids[place]
    monkeypatch.setattr(type(tokenizer), "special_token_ids", property(lambda _: [special]))
    stream = tales.stream("The wolf", max_new_tokens=40, stop_token_ids=None)
    text = "".join(stream)
    assert stream.stats.token_ids == free_ids
    assert text == tokenizer.decode([token for token in free_ids if token != special])
    monkeypatch.setattr(type(tokenizer), "end_token_id", property(lambda _: special))
    stream = tales.stream("The wolf", max_new_tokens=40)
    assert "".join(stream) == tokenizer.decode(free_ids[:place])
    assert (stream.stats.finish_reason, stream.stats.token_ids[-1]) == ("stop", special)


def test_the_context_ends_a_stream(tales):
    context = tales.backbone.config.n_positions
    tales.compile(sampler=samplers.Random(seed=2))
    stream = tales.stream("A" + " the" * (context - 20), stop_token_ids=None)
    assert "".join(stream)
    stats = stream.stats
    assert (stats.finish_reason, stats.prompt_tokens + stats.new_tokens) == ("context", context)


def test_start_token(tales):
    assert tales.stream("The wolf", max_new_tokens=1).stats.prompt_tokens - 1 == (
        tales.stream("The wolf", max_new_tokens=1, add_start_token=False).stats.prompt_tokens
    )
    assert tales.stream("", max_new_tokens=1, add_start_token=False).stats.prompt_tokens == 1


def test_multi_byte_characters_are_never_split(tales):
    """Random bytes from a hot sampler: pieces joined are exactly the decoded ids."""
    tokenizer = tales.preprocessor.tokenizer
    tales.compile(sampler=samplers.Random(seed=9, temperature=30.0))
    stream = tales.stream("é", max_new_tokens=200, stop_token_ids=None)
    text = "".join(stream)
    special = set(tokenizer.special_token_ids)
    shown = [token for token in stream.stats.token_ids if token not in special]
    assert text == tokenizer.decode(shown)


def test_bad_arguments(tales):
    context = tales.backbone.config.n_positions
    with pytest.raises(ContextLengthError, match=rf"only {context} fit: shorten it$"):
        tales.stream("word " * (2 * context))
    for bad in (0, -3, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="max_new_tokens must be an integer"):
            tales.stream("A", max_new_tokens=bad)
    with pytest.raises(InvalidArgumentError, match="stop_texts must be"):
        tales.stream("A", max_new_tokens=5, stop_texts=[""])


def test_pace_adapts(device):
    pace = Pace(device)
    assert pace.steps(100) == 1
    pace.took(0.001, 1)
    assert pace.steps(100) == 2
    pace.took(0.002, 2)
    pace.took(0.004, 4)
    pace.took(0.008, 8)
    assert pace.steps(100) == 16
    assert pace.steps(3) == 3
    pace.took(1.6, 16)  # 0.1 s a step: more than a submit may take
    assert pace.steps(100) == 1


@pytest.mark.parametrize(
    ("platform", "kind", "most"),
    [("emscripten", "Unknown", 3), ("emscripten", "CPU", 10), ("linux", "IntegratedGPU", 10)],
)
def test_submits_leave_time_to_draw_a_page(monkeypatch, platform, kind, most):
    """A GPU that also draws the page gets submits of at most a frame: 3 steps of 5 ms."""
    monkeypatch.setattr("gpt2_wgpu.models.pace.sys", SimpleNamespace(platform=platform))
    info = AdapterInfo("", "", "", "", kind)
    pace = Pace(SimpleNamespace(info=info))
    for steps in (1, 2, 4, 8):
        pace.took(0.005 * steps, steps)
    assert pace.steps(100) == most
