"""lm-eval's log-likelihoods of the embedded model, computed by its Hugging Face back end."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tests.parity import cases


def values() -> dict[str, Any]:
    """What lm-eval scores for each case."""
    lm = HFLM(pretrained=str(cases.MODEL), device="cpu", dtype="float32", batch_size=1)
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in cases.CONTINUATIONS]
    rolling = [Instance("loglikelihood_rolling", {}, (cases.SCORED,), 0)]
    (total,) = lm.loglikelihood_rolling(rolling)
    tokens = len(lm.tok_encode(cases.SCORED))
    return {
        "version": version("lm-eval"),
        "continuations": [
            {"nats": nats, "greedy": bool(greedy)} for nats, greedy in lm.loglikelihood(requests)
        ],
        "perplexity": math.exp(-total / tokens),
    }
