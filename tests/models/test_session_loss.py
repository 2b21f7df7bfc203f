"""Sessions after the loss of a device: the same keys, values and tokens, to the bit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models import session_cache
from gpt2_wgpu.models.decode_run import DecodeRun
from gpt2_wgpu.webgpu.backends import flush_promises
from gpt2_wgpu.webgpu.capabilities import Capabilities

pytestmark = pytest.mark.native("the loss of a device")

PROMPT = [(7 * t + t * t) % 101 for t in range(40)]


@pytest.fixture
def lm(request, monkeypatch):
    """A model of a dtype, on devices that choose the kernels for CPUs or for GPUs."""
    dtype, of_cpus = request.param
    of = Capabilities.of

    def chosen(*adapter):
        changes = {"prefers_no_barriers": of_cpus, "prefers_w8a8": of_cpus, "prefill_rows": 16}
        return replace(of(*adapter), **changes)

    monkeypatch.setattr(Capabilities, "of", chosen)
    with gw.Device() as lost:
        backbone = gw.GPT2Backbone(
            101, 2, 2, 64, 128, max_sequence_length=160, dtype=dtype,
            initializer_range=0.2, device=lost,
        )  # fmt: skip
        with gw.GPT2CausalLM(backbone) as lm:
            yield lm
        lm.device.close()


def lose(lm):
    lm.backbone.recovered_at = -math.inf
    lm.device.gpu.destroy()
    flush_promises(lm.device.gpu)


def pages_of(session):
    """The words of the stored keys and values."""
    return [page.tolist() for page in session._cache.pages]


def overwrite_run(lm):
    """Let another text use the cache of the kept run."""
    with lm.session([9, 8] * 70) as other:
        other.generate(2, stop_token_ids=None, sampler="greedy")


def a_session(lm, losses=()):
    """A session with all kinds of segments, and what it generated last."""
    session = lm.session(PROMPT)
    for turn in range(4):
        if turn in losses:
            lose(lm)
        session.generate(9, stop_token_ids=None, sampler=samplers.Random(seed=turn))
        session.rewind(2 + turn)
        session.append([turn] * (1 + 5 * turn))
    session.edit([*session.token_ids[:20], 3, 1, 4])
    session.generate(48, stop_token_ids=None, sampler=samplers.Random(seed=8))
    session.append([5, 6])
    if 4 in losses:
        lose(lm)
    overwrite_run(lm)
    found = session.generate(20, stop_token_ids=None, sampler=samplers.Random(seed=9))
    return session, found


CPUS, GPUS = True, False
KINDS = [("float32", GPUS), ("float16", CPUS), ("q8", CPUS), ("q4", GPUS)]


@pytest.mark.parametrize("lm", KINDS, indirect=True, ids=str)
def test_lost_between_calls(lm):
    expected, found = a_session(lm)
    pages = pages_of(expected)
    count = expected.cached_tokens
    session, again = a_session(lm, [2, 4])
    assert again == found
    assert session.cached_tokens == count
    assert cut(pages_of(session), count) == cut(pages, count)
    session.close()
    expected.close()
    assert gw.memory(lm.device).by_kind["cache"] == 0


def cut(pages, count):
    """The words of the stored positions of pages: keys, then values of each head."""
    found = []
    for index, layers in enumerate(pages):
        here = min(count - index * 64, 64)
        for words in layers:
            half = len(words) // 2
            for begin, width in ((0, 8), (half, 32)):
                step = 64 * width
                for at in range(begin, begin + half, step):
                    found.append(words[at : at + here * width])
    return found


@pytest.mark.parametrize("lm", [("float16", GPUS), ("q8", CPUS)], indirect=True, ids=str)
def test_lost_within_a_call(lm, monkeypatch):
    with lm.session(PROMPT) as session:
        session.generate(7, stop_token_ids=None, sampler="greedy")
        session.append([1, 2, 3, 4])
        with session.fork() as fork:
            expected = fork.generate(30, stop_token_ids=None, sampler="greedy")
            pages, count = pages_of(fork), fork.cached_tokens
        submit, submits = DecodeRun.submit, []

        def losing(self, *args):
            submits.append(self)
            if len(submits) == 3:
                lose(lm)
            return submit(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(DecodeRun, "submit", losing)
            assert session.generate(30, stop_token_ids=None, sampler="greedy") == expected
        assert len(submits) > 3
        assert cut(pages_of(session), count) == cut(pages, count)


@pytest.mark.parametrize("lm", [("q8", CPUS)], indirect=True, ids=str)
def test_without_memory_for_pages(lm, monkeypatch):
    """Tokens are computed again as they were at first."""
    expected, found = a_session(lm)
    count, full = 0, session_cache.new_page

    def sometimes(cache):
        nonlocal count
        count += 1
        if count % 2:
            raise OutOfGPUMemoryError("no memory")
        return full(cache)

    monkeypatch.setattr(session_cache, "new_page", sometimes)
    session, again = a_session(lm)
    assert count > 2
    assert again == found
    session.close()
    expected.close()
