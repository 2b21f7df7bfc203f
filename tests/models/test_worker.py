"""Defaults of a page's settings, as passed by its worker to the sampler."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gpt2_wgpu.integrations import web_worker

pytestmark = pytest.mark.native("no model, no GPU")


@pytest.mark.parametrize(
    ("settings", "penalty"),
    [
        ({}, 1.1),
        ({"temperature": 0.5}, 1.1),
        ({"temperature": 0}, 1.0),
        ({"temperature": 0, "repetitionPenalty": 1.3}, 1.3),
        ({"repetitionPenalty": 1}, 1),
    ],
)
def test_drawn_tokens_are_kept_out_of_loops(settings, penalty):
    compiled = []
    lm = SimpleNamespace(
        device=None, compile=compiled.append, stream=lambda *_, **__: SimpleNamespace(stats=None)
    )
    web_worker.Model("a model", lm).stream("Once", **settings)
    (sampler,) = compiled
    assert sampler.repetition_penalty == penalty
