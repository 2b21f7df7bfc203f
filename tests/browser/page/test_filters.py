"""What the page shows of the sampler's filters, against the NumPy version of the kernel."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from gpt2_wgpu.nn import SamplingOptions
from tests.browser.page.conftest import ROOT
from tests.gpu import references
from tests.gpu.nn.test_sampling import kept_tokens

PROGRAM = """
const { filtered } = await import(process.argv[1]);
const found = JSON.parse(process.argv[2]).map((given) => filtered(...given));
console.log(JSON.stringify(found));
"""
SHOWN, VOCABULARY = 20, 500
OPTIONS = [
    SamplingOptions(),
    SamplingOptions(temperature=0.0),
    SamplingOptions(temperature=0.8, top_k=5),
    SamplingOptions(temperature=1.7, top_k=20),
    SamplingOptions(top_p=0.6),
    SamplingOptions(temperature=0.7, top_p=0.8),
    SamplingOptions(temperature=1.4, top_p=0.5),
    SamplingOptions(min_p=0.15),
    SamplingOptions(temperature=1.3, min_p=0.2, top_k=8),
    SamplingOptions(temperature=0.8, top_k=40, top_p=0.95),
    SamplingOptions(temperature=0.9, top_k=12, top_p=0.7, min_p=0.03),
]


def first_cut(rank, weight, before, options):
    """What cuts a token first, in the order of the kernel's header."""
    if options.top_k and rank >= options.top_k:
        return "top-k"
    if options.top_p < 1 and before > options.top_p:
        return "top-p"
    return "min-p" if weight < options.min_p else ""


def expected(logits, options):
    """Probability of each likely token in a draw, and what cuts it."""
    order = np.argsort(-logits, kind="stable")[:SHOWN]
    if options.temperature == 0:
        return np.eye(SHOWN)[0], ["", *["greedy"] * (SHOWN - 1)]
    kept, masses = kept_tokens(logits, options)
    drawn = np.where(np.isin(order, kept), masses[order], 0) / masses[kept].sum()
    chances = references.softmax(logits[None] / options.temperature)[0][order]
    before = np.cumsum(chances) - chances
    rows = enumerate(zip(chances / chances[0], before, strict=True))
    return drawn, [first_cut(rank, *each, options) for rank, each in rows]


@pytest.mark.parametrize("scale", [2.0, 4.0], ids=["flat", "steep"])
def test_alternatives_after_the_filters(scale):
    if shutil.which("node") is None:
        pytest.skip("no Node")
    logits = references.random(VOCABULARY, scale=scale).astype(np.float64)
    logprobs = references.log_softmax(logits[None])[0]
    entropy = float(-(np.exp(logprobs) * logprobs).sum())
    shown = sorted(logprobs.tolist(), reverse=True)[:SHOWN]
    names = {"temperature": "temperature", "topK": "top_k", "topP": "top_p", "minP": "min_p"}
    given = [
        [shown, entropy, {key: getattr(options, name) for key, name in names.items()}]
        for options in OPTIONS
    ]
    module = (ROOT / "web" / "page" / "inspector" / "filters.js").as_uri()
    command = ["node", "--input-type=module", "-e", PROGRAM, module, json.dumps(given)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not run.returncode, run.stderr
    exact = 0
    for found, options in zip(json.loads(run.stdout), OPTIONS, strict=True):
        drawn, cut_by = expected(logits, options)
        exact += not found["about"]
        if found["about"]:
            np.testing.assert_allclose(found["probabilities"], drawn, atol=0.03)
        else:
            np.testing.assert_allclose(found["probabilities"], drawn, atol=1e-6)
            assert found["cutBy"] == cut_by
    assert exact >= 6  # of those whose kept tokens are all among the shown ones
