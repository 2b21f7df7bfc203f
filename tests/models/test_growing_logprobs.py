"""Log-probabilities of a text that grows: those of the whole text."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.models.evaluation import token_logprobs
from gpt2_wgpu.models.growing_logprobs import GrowingLogprobs
from gpt2_wgpu.webgpu.backends import flush_promises
from tests.models.session_models import PROMPT, model_of

pytestmark = pytest.mark.usefixtures("no_leak")

PIECES = [[5], [], [6, 7, 8], [9] * 40, [1]]


def same(found, expected):
    """Whether results are those of the whole text, up to rounding."""
    assert found[0] == pytest.approx(expected.logprobs, abs=1e-4)
    for top, other in zip(found[1], expected.top_logprobs, strict=True):
        assert top == pytest.approx(other, abs=1e-4)


async def pieces_of(growing, before=lambda piece: None):
    """The results of all pieces."""
    logprobs, tops = [], []
    for piece in PIECES:
        before(piece)
        found = await growing.append(piece)
        logprobs += found[0]
        tops += found[1]
    growing.close()
    return logprobs, tops


def text_of(lm):
    return token_logprobs(lm, [PROMPT], [[token for piece in PIECES for token in piece]], 3)


@pytest.mark.parametrize("rows", [None, 16])
def test_pieces_have_the_results_of_the_whole_text(device, monkeypatch, rows):
    async def main(lm):
        (expected,) = await text_of(lm)
        if rows is not None:  # several chunks
            monkeypatch.setattr("gpt2_wgpu.models.evaluation.chunk_rows", lambda *_: rows)
        same(await pieces_of(GrowingLogprobs(lm.backbone, PROMPT, 100, 3)), expected)

    with model_of() as lm:
        asyncio.run(main(lm))


@pytest.mark.native("losing a device")
def test_a_lost_device_is_replaced():
    with gw.Device() as lost:
        lm = gw.GPT2CausalLM(
            gw.GPT2Backbone(101, 2, 4, 96, 160, max_sequence_length=160, device=lost)
        )

        def lose(piece):
            if len(piece) == 40:
                lost.gpu.destroy()
                flush_promises(lost.gpu)

        async def main():
            (expected,) = await text_of(lm)
            same(await pieces_of(GrowingLogprobs(lm.backbone, PROMPT, 100, 3), lose), expected)

        asyncio.run(main())
        assert lm.device is not lost
        new = lm.device
        lm.dispose()
        new.close()
