"""Min-p and typical sampling: the tokens drawn are those that transformers' warpers keep."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_wgpu.nn import SamplingOptions
from tests.gpu import references
from tests.gpu.nn.test_sampling import sampled

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.mark.native("PyTorch")
@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(temperature=0.7, min_p=0.2),
        SamplingOptions(typical_p=0.3),
        SamplingOptions(temperature=1.3, top_k=30, min_p=0.05, typical_p=0.6),
    ],
    ids=["min_p", "typical_p", "all"],
)
@pytest.mark.parametrize("case", ["plain", "ties", "excluded"])
def test_the_tokens_drawn_are_those_that_transformers_keeps(device, options, case):
    import torch
    from transformers.generation import logits_process as hf

    logits = references.random(60, scale=2)
    if case == "ties":
        logits = np.round(logits)
    elif case == "excluded":
        logits[::3] = -3.4e38  # LOWEST of store_logits.wgsl, for minus infinity
    scores = torch.tensor(np.where(logits < -1e38, -np.inf, logits))[None]
    scores = hf.TemperatureLogitsWarper(options.temperature)(None, scores)
    for warper in (
        *([hf.TopKLogitsWarper(options.top_k)] if options.top_k else []),
        *([hf.MinPLogitsWarper(options.min_p)] if options.min_p else []),
        *([hf.TypicalLogitsWarper(options.typical_p)] if options.typical_p < 1 else []),
    ):
        scores = warper(None, scores)
    wanted = {*torch.isfinite(scores[0]).nonzero()[:, 0].tolist()}
    seeds = range(900)
    found = sampled(device, np.tile(logits, (len(seeds), 1)), options, seeds=seeds)
    drawn = {*found["token"][:, 0].tolist()}
    likely = {token for token in wanted if torch.softmax(scores[0], 0)[token] > 0.01}
    assert likely <= drawn <= wanted
    assert len(wanted) < (40 if case == "excluded" else 60)
