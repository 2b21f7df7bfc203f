"""Are the tokens right? Asked of a path that shares nothing with the one that is timed.

Timed is the recorded step, replayed over a cache, one token at a time, sampled on the GPU. The
reference is the plain forward pass, eager and without what was cached: all tokens of a row at once,
in which each new token has to have the largest logit of its place. Rounding may swap two logits
that are all but equal, and only those: the pass is fed the tokens that were generated, so one such
tie does not upset the places after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.bench.runs import Rows
from gpt2_wgpu.errors import BenchmarkError
from gpt2_wgpu.models import GPT2CausalLM, self_check_async
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.webgpu import Device

# Logits closer than this count as equal: sums in another order differ by some 1e-4.
MARGIN = 0.005
CANDIDATES = 8  # largest logits looked at
PLACES = 64  # whose logits are computed at a time


@dataclass(frozen=True)
class Checked:
    """What the comparison saw; ``near_ties`` places were within the margin and had another id."""

    tokens: int = 0  # compared
    distinct: int = 0  # ids among them: equal tokens prove little where all are one
    near_ties: int = 0
    smallest_lead: float = float("inf")  # of a largest logit over the second


async def check_device(device: Device, dtypes: Sequence[str]) -> None:
    """Raises ``BenchmarkError`` where the self-test fails with weights in one of ``dtypes``."""
    report = await self_check_async(device, dtypes)
    if wrong := [f"{check.name} ({check.detail})" for check in report.checks if not check.passed]:
        raise BenchmarkError(
            f"{device.info.name} computes wrong numbers, so no speed is shown: {', '.join(wrong)}"
        )


async def check_tokens(lm: GPT2CausalLM, prompts: Rows, tokens: Rows) -> Checked:
    """Compares ``tokens``, which continued ``prompts``, with the plain forward pass.

    Raises ``BenchmarkError`` for the first token that differs.
    """
    checked = Checked(distinct=len({token for row in tokens for token in row}))
    for index, (prompt, row) in enumerate(zip(prompts, tokens, strict=True)):
        best, logits = await _largest(lm, prompt, row)
        checked = _compare(index, row, best, logits, checked)
    return checked


def check_same(expected: Rows, tokens: Rows, what: str) -> None:
    """Raises ``BenchmarkError`` unless ``tokens`` repeat those that were checked."""
    for index, (right, row) in enumerate(zip(expected, tokens, strict=True)):
        for place, (one, other) in enumerate(zip(right, row, strict=True)):
            if one != other:
                raise BenchmarkError(
                    f"new token {place} of row {index} is {other} in {what} and was {one} before: "
                    "runs differ, so no speed is shown"
                )


async def _largest(
    lm: GPT2CausalLM, prompt: Sequence[int], row: Sequence[int]
) -> tuple[list[list[int]], list[list[float]]]:
    """The ids with the largest logits at each place of ``row``, and these logits.

    As ``lm({"token_ids"})`` computes them, but of a few places at a time: all would be too much.
    """
    best: list[list[int]] = []
    logits: list[list[float]] = []
    with tidy("reference"):
        x = lm.backbone.uncached({"token_ids": [[*prompt, *row[:-1]]]})  # (1, T, D)
        for first in range(0, len(row), PLACES):
            count = min(PLACES, len(row) - first)
            with tidy("logits"):
                block = (1, count, x.shape[2])
                places = ops.slice(x, (0, len(prompt) - 1 + first, 0), block)
                scores = lm.backbone.logits(places)  # (1, count, V)
                values, ids = ops.top_k(scores, min(CANDIDATES, scores.shape[2]))
                best += await _only_row(ids)
                logits += await _only_row(values)
    return best, logits


async def _only_row(x: Tensor) -> Any:
    """``x`` [1, n, ...] as a list of n."""
    return (await x.data()).tolist()[0]


def _compare(
    index: int,
    row: Sequence[int],
    best: list[list[int]],
    logits: list[list[float]],
    so_far: Checked,
) -> Checked:
    ties, lead = so_far.near_ties, so_far.smallest_lead
    for place, token in enumerate(row):
        ids, values = best[place], logits[place]
        equals = [one for one, value in zip(ids, values, strict=True) if values[0] - value < MARGIN]
        if not values[0] - values[-1] >= 0 or token not in equals:  # NaN compares false
            raise BenchmarkError(
                f"new token {place} of row {index} is {token}, and should be {ids[0]} by the "
                f"uncached forward pass (logit {values[0]:.4f}, the next {values[1]:.4f}): wrong "
                "outputs have no speed"
            )
        ties += token != ids[0]
        lead = min(lead, values[0] - values[1])
    return Checked(so_far.tokens + len(row), so_far.distinct, ties, lead)
