"""Searches without NumPy, so that they run in a browser, too."""

from __future__ import annotations

import pytest

from gpt2_wgpu.samplers import BeamSampler, ContrastiveSampler
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = [[1, 2, 3], [4]]


@pytest.fixture
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


def test_beam_search(lm):
    expected = tiny.text_of(lm)
    lm.compile(BeamSampler(1))
    assert tiny.text_of(lm) == expected
    lm.compile(BeamSampler(3, return_all_beams=True))
    out = lm.generate(tiny.packed(PROMPTS, 12), stop_token_ids=[5])
    rows, scores = tiny.ids_of(out), [float(score) for score in out["scores"]]
    assert [row[:1] for row in rows] == [[1]] * 3 + [[4]] * 3
    assert len({tuple(row) for row in rows}) == 6
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert scores[3:] == sorted(scores[3:], reverse=True)


def test_contrastive_search(lm):
    expected = tiny.text_of(lm)
    lm.compile(ContrastiveSampler(4, 0))  # alpha 0: the most probable token
    assert tiny.text_of(lm) == expected
    lm.compile(ContrastiveSampler(4, 0.9))
    assert tiny.text_of(lm) != expected
