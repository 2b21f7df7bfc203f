"""Defaults of a page's settings, as passed by its worker to the sampler."""

from __future__ import annotations

from copy import copy
from types import SimpleNamespace

import pytest

from gpt2_wgpu.integrations import web_worker

pytestmark = pytest.mark.native("the tests of the page run it in the browser")


@pytest.mark.parametrize(
    ("of_file", "settings", "penalty"),
    [
        ({}, {}, 1.1),
        ({}, {"temperature": 0.5}, 1.1),
        ({}, {"temperature": 0}, 1.0),
        ({}, {"temperature": 0, "repetitionPenalty": 1.3}, 1.3),
        ({}, {"repetitionPenalty": 1, "maxTokens": 9}, 1),
        ({"temperature": 0}, {}, 1.0),
        ({"temperature": 0}, {"temperature": 0.5}, 1.1),
        ({"repetition_penalty": 1.2}, {}, 1.2),
        ({"repetition_penalty": 1.2}, {"repetitionPenalty": 1}, 1),
    ],
)
def test_drawn_tokens_are_kept_out_of_loops(of_file, settings, penalty):
    compiled, called = [], {}
    lm = SimpleNamespace(
        device=None, compile=compiled.append, stream=lambda *_, **given: called.update(given),
        generation_defaults=of_file, generation_limits={"max_new_tokens": 5},
    )  # fmt: skip
    web_worker.Model("a model", lm).stream("Once", **settings)
    (sampler,) = compiled
    assert sampler.repetition_penalty == penalty
    assert called["max_new_tokens"] == settings.get("maxTokens", 5)


def test_the_embedded_model_keeps_the_documented_defaults(tales):
    assert tales.generation_defaults == {"temperature": 0.8, "top_k": 40}
    model = web_worker.Model("a model", tales)
    assert model.info()["defaults"] == web_worker.DEFAULTS
    changed = copy(tales)
    changed.generation_defaults = {"top_p": 0.5}
    changed.generation_limits = {"max_new_tokens": 9}
    info = web_worker.Model("a model", changed).info()
    assert info["defaults"] == web_worker.DEFAULTS | {"topP": 0.5, "maxTokens": 9}
