"""Texts of the embedded model, equal to recorded ones in every weight dtype.

Greedy, seeded and penalised sampling, alone and in a batch. ``python -m
tests.models.test_recorded_texts`` writes the table anew; only a change that is meant to change
results may do so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

TABLE = Path(__file__).parent / "data" / "recorded_texts.json"
# Among others, other adapters draw another token where two are almost equally likely.
pytestmark = pytest.mark.native("the adapter of the recorded texts")

DTYPES = list(WEIGHT_FORMATS)
PROMPTS = ["Once upon a time", "The king said to his daughter:", ""]
LENGTH = 48  # tokens in all
SAMPLERS = {
    "greedy": lambda: samplers.Greedy(),
    "greedy, penalised": lambda: samplers.Greedy(
        repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.25
    ),
    "random": lambda: samplers.Random(seed=7, temperature=0.7),
    "top-k": lambda: samplers.TopK(40, seed=8, repetition_penalty=1.1),
    "top-p": lambda: samplers.TopP(0.9, seed=9, temperature=0.9),
    "top-k and top-p": lambda: samplers.TopP(0.95, 100, seed=10),
}


def texts_of(lm: gw.GPT2CausalLM, name: str) -> list[str]:
    """The three prompts generated in a batch, then the first one alone and streamed."""
    lm.compile(SAMPLERS[name]())
    texts = lm.generate(PROMPTS, max_length=LENGTH)
    alone = lm.generate(PROMPTS[0], max_length=LENGTH)
    with lm.stream(PROMPTS[1], max_new_tokens=24) as stream:
        return [*texts, alone, "".join(stream)]


@pytest.fixture(scope="module", params=DTYPES)
def lm(request: pytest.FixtureRequest, device: gw.Device) -> Iterator[gw.GPT2CausalLM]:
    with gw.GPT2CausalLM.from_preset("fairytales", dtype=request.param) as loaded:
        yield loaded


@pytest.mark.parametrize("name", SAMPLERS)
def test_texts_are_those_that_were_recorded(lm: gw.GPT2CausalLM, name: str) -> None:
    assert texts_of(lm, name) == json.loads(TABLE.read_text())[lm.backbone.dtype][name]


if __name__ == "__main__":
    table = {}
    for dtype in DTYPES:
        with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as model:
            table[dtype] = {name: texts_of(model, name) for name in SAMPLERS}
    TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
