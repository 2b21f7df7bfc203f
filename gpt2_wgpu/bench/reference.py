"""Verification of tokens by an independent path: the eager, uncached forward pass.

The timed path replays a recorded step over a KV cache, one token at a time, with sampling on the
GPU. The reference computes all tokens of a row at once; each new token must have the largest logit
of its position. Only nearly equal logits may be swapped by rounding. The reference is given the
generated tokens, so such a tie does not affect later positions.
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

# Margin of equal logits: sums in another order differ by about 1e-4.
MARGIN = 0.005
CANDIDATES = 8  # largest logits compared
PLACES = 64  # positions whose logits are computed at a time


@dataclass(frozen=True)
class Checked:
    """Result of the comparison; ``near_ties``: positions with another id within the margin."""

    tokens: int = 0  # compared
    distinct: int = 0  # distinct ids among them; with one id, equality proves little
    near_ties: int = 0
    smallest_lead: float = float("inf")  # smallest gap between the two largest logits


async def check_device(device: Device, dtypes: Sequence[str]) -> None:
    """Raise BenchmarkError if the self-test fails with weights in one of ``dtypes``."""
    report = await self_check_async(device, dtypes)
    if wrong := [f"{check.name} ({check.detail})" for check in report.checks if not check.passed]:
        raise BenchmarkError(
            f"{device.info.name} computes wrong numbers, so no speed is shown: {', '.join(wrong)}"
        )


async def check_tokens(lm: GPT2CausalLM, prompts: Rows, tokens: Rows) -> Checked:
    """Compare ``tokens``, which continue ``prompts``, with the uncached forward pass.

    Raises:
        BenchmarkError: a token differs; the message names the first one.
    """
    checked = Checked(distinct=len({token for row in tokens for token in row}))
    for index, (prompt, row) in enumerate(zip(prompts, tokens, strict=True)):
        best, logits = await _largest(lm, prompt, row)
        checked = _compare(index, row, best, logits, checked)
    return checked


def check_same(expected: Rows, tokens: Rows, what: str) -> None:
    """Raise BenchmarkError unless ``tokens`` equal those that were verified."""
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
    """Return the ids with the largest logits at each position of ``row``, and these logits.

    As ``lm({"token_ids"})``, but for a few positions at a time, to limit memory.
    """
    best: list[list[int]] = []
    logits: list[list[float]] = []
    with tidy("reference"):
        x = lm.backbone.forward_without_cache({"token_ids": [[*prompt, *row[:-1]]]})  # (1, T, D)
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
    """Read ``x`` [1, n, ...] as a list of n."""
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
