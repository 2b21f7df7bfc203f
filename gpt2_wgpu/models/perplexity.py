"""How well a model predicts texts: the perplexity, computed on the GPU.

A text becomes ids as a prompt does, start token included (``preprocessor.encode_prompts``). Windows
as long as the model's context move on by ``stride`` tokens, and each token but a text's first is
predicted exactly once, from everything before it in its window: those of the first window from up
to context - 1 tokens, all later ones from at least context - stride. With N tokens predicted over
all texts together,

    perplexity = exp(-1/N Σ log p(token | those before it in its window)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from gpt2_wgpu.errors import DeviceLostError, NumericalError
from gpt2_wgpu.gpu import Tensor, layers, ops, tidy
from gpt2_wgpu.gpu.layers import NO_TARGET
from gpt2_wgpu.models.recovery import recover

if TYPE_CHECKING:
    from gpt2_wgpu.models.backbone import GPT2Backbone

BATCH = 8  # windows side by side
LOGIT_BYTES = 32 << 20  # of one piece of the head's output: what is not read needs no more


@dataclass(frozen=True)
class Window:
    """Ids of consecutive tokens and, for each, the one to predict after it, or ``NO_TARGET``."""

    ids: list[int]
    targets: list[int]


def windows(ids: Sequence[int], context: int, stride: int) -> Iterator[Window]:
    """``ids`` in windows of ``context`` that move on by ``stride``: each is a target once."""
    done, last = 0, len(ids) - 1
    while done < last:
        end = min(context if done == 0 else done + stride, last)
        start = max(0, end - context)
        unscored = [NO_TARGET] * (done - start)
        yield Window(list(ids[start:end]), unscored + list(ids[done + 1 : end + 1]))
        done = end


async def total_loss(
    backbone: GPT2Backbone, rows: Sequence[Sequence[int]], stride: int
) -> tuple[float, int]:
    """(nats, tokens): the sum of -log p over all predicted tokens, and how many they are.

    Raises ``NumericalError`` when it is not finite.
    """
    context = backbone.config.n_positions
    pieces = [piece for row in rows for piece in windows(row, context, stride)]
    pieces.sort(key=lambda piece: len(piece.ids))  # little padding
    device = backbone.device
    try:
        nats = await _sum(backbone, pieces)
    except DeviceLostError:
        await recover(backbone, device)
        nats = await _sum(backbone, pieces)
    if not math.isfinite(nats):
        raise NumericalError(
            f"the loss is {nats}: the weights hold NaN or overflow, or the device computes wrongly"
        )
    return nats, sum(len(row) - 1 for row in rows if row)


async def _sum(backbone: GPT2Backbone, pieces: Sequence[Window]) -> float:
    nats = 0.0
    for first in range(0, len(pieces), BATCH):
        nats += await _batch_loss(backbone, pieces[first : first + BATCH])
    return nats


async def _batch_loss(backbone: GPT2Backbone, batch: Sequence[Window]) -> float:
    """The loss of windows side by side, filled up on the right, where nothing looks at it."""
    longest = max(len(window.ids) for window in batch)
    step = max(1, backbone.device.capabilities.prefill_rows // len(batch))
    nats = 0.0
    async with tidy("perplexity"):
        cache = backbone.new_cache(len(batch), longest)
        for begin in range(0, longest, step):
            end = min(begin + step, longest)
            ids = [_filled(window.ids[begin:end], end - begin, 0) for window in batch]
            targets = [
                _filled(window.targets[begin:end], end - begin, NO_TARGET) for window in batch
            ]
            with tidy() as scope:
                start = backbone.words([begin] * len(batch))
                hidden = backbone.forward(backbone.words(ids), cache, start)
                losses = scope.escape(_losses(backbone, hidden, list(chain(*targets))))
            for loss in losses:
                nats += math.fsum(await loss.data())
                loss.dispose()
    return nats


def _losses(backbone: GPT2Backbone, hidden: Tensor, targets: Sequence[int]) -> list[Tensor]:
    """The loss of each of ``hidden`` [B, T, D], in pieces whose logits fit."""
    head, width = backbone.weights.lm_head, hidden.shape[-1]
    rows = hidden.view((len(targets), width))
    most = max(1, LOGIT_BYTES // (4 * head.rows))
    losses = []
    for first in range(0, len(targets), most):
        count = min(most, len(targets) - first)
        wanted = targets[first : first + count]
        if set(wanted) == {NO_TARGET}:
            continue
        logits = layers.linear(ops.slice(rows, (first, 0), (count, width)), head)
        losses.append(layers.target_loss(logits, backbone.words(wanted)))
        logits.dispose()
    return losses


def _filled(values: list[int], length: int, value: int) -> list[int]:
    return values + [value] * (length - len(values))
