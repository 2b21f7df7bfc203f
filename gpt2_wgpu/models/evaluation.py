"""Evaluation: perplexity on texts, and KL divergence from a reference model.

Texts are encoded like prompts, with the start token (``preprocessor.encode_prompts``). Windows of
the context's length advance by ``stride`` tokens, and each token except a text's first is predicted
exactly once, from all tokens before it in its window: those of the first window from up to
context - 1 tokens, later ones from at least context - stride. With N predicted tokens in all texts,

    perplexity = exp(-1/N Σ log p(token | those before it in its window))
    divergence = 1/N Σ KL(reference's distribution of the token || the model's).

Computed on the GPU; one or two numbers per position are read back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from gpt2_wgpu import nn
from gpt2_wgpu.errors import DeviceLostError, InvalidArgumentError, NumericalError
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.pace import WorkPace
from gpt2_wgpu.models.prefill import chunk_rows, fitting_rows, residual
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.nn import NO_TARGET
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import integer

BATCH = 8  # windows per batch
LOGIT_BYTES = 32 << 20  # max size of a chunk of logits, which are not read back

# (logits [R, V] of each model, targets [R]) → values [R] to be summed over positions.
Score = Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]


class LanguageModel(Protocol):
    """Protocol of an evaluated model: it encodes texts, and its backbone computes logits."""

    backbone: GPT2Backbone
    preprocessor: GPT2CausalLMPreprocessor | None

    def encode_prompts(
        self, prompts: Sequence[str], preprocessor: GPT2CausalLMPreprocessor
    ) -> list[list[int]]:
        """Encode texts like prompts."""
        ...


@dataclass(frozen=True)
class Divergence:
    """Divergence of a model's predictions from a reference; see ``GPT2CausalLM.divergence``."""

    nats: float  # mean KL(reference || model) per token
    agreement: float  # fraction of the tokens with the same most likely prediction
    tokens: int  # predicted tokens


@dataclass(frozen=True)
class Window:
    """Consecutive ids and, for each, the id to predict next, or ``NO_TARGET``."""

    ids: list[int]
    targets: list[int]


async def perplexity(lm: LanguageModel, texts: Any, stride: int | None) -> float:
    """See ``GPT2CausalLM.perplexity``."""
    tokens, (nats,) = await _totals("perplexity", [lm], texts, stride, _losses)
    return math.exp(nats / tokens)


async def divergence(
    lm: LanguageModel, reference: LanguageModel, texts: Any, stride: int | None
) -> Divergence:
    """See ``GPT2CausalLM.divergence``."""
    ours, theirs = lm.backbone, reference.backbone
    if ours.device is not theirs.device:
        raise InvalidArgumentError(
            f"divergence: the model is on {ours.device}, the reference on {theirs.device}, "
            "another device: load both on one"
        )
    if ours.config.vocab_size != theirs.config.vocab_size:
        raise InvalidArgumentError(
            f"divergence: vocabularies of {ours.config.vocab_size} and "
            f"{theirs.config.vocab_size} tokens: no comparison is possible"
        )
    models = [lm, reference]
    tokens, (nats, same) = await _totals("divergence", models, texts, stride, _divergences)
    return Divergence(nats / tokens, same / tokens, tokens)


def _losses(logits: Sequence[Tensor], targets: Tensor) -> Sequence[Tensor]:
    (ours,) = logits
    return [nn.target_loss(ours, targets)]


def _divergences(logits: Sequence[Tensor], targets: Tensor) -> Sequence[Tensor]:
    ours, theirs = logits
    return nn.divergence(ours, theirs, targets)


def windows(ids: Sequence[int], context: int, stride: int) -> Iterator[Window]:
    """Yield windows of ``context`` ids that advance by ``stride``: each id is a target once."""
    done, last = 0, len(ids) - 1
    while done < last:
        end = min(context if done == 0 else done + stride, last)
        start = max(0, end - context)
        unscored = [NO_TARGET] * (done - start)
        yield Window(list(ids[start:end]), unscored + list(ids[done + 1 : end + 1]))
        done = end


async def _totals(
    function: str, models: Sequence[LanguageModel], texts: Any, stride: int | None, score: Score
) -> tuple[int, list[float]]:
    """Return the number of predicted tokens, and the sums of the values of ``score``."""
    backbones = [lm.backbone for lm in models]
    context = min(backbone.config.n_positions for backbone in backbones)
    stride = max(1, context // 2) if stride is None else integer("stride", stride, 1, context)
    rows = _ids_of(models[0], texts)
    tokens = sum(len(row) - 1 for row in rows if row)
    if not tokens:
        raise InvalidArgumentError(f"{function}: the texts contain no token to predict")
    pieces = [piece for row in rows for piece in windows(row, context, stride)]
    pieces.sort(key=lambda piece: len(piece.ids))  # minimises padding
    device = backbones[0].device
    try:
        sums = await _sums(backbones, pieces, score)
    except DeviceLostError:
        for backbone in backbones:
            await recover(backbone, device)
        sums = await _sums(backbones, pieces, score)
    for total in sums:
        if not math.isfinite(total):
            raise NumericalError(
                f"{function}: the sum over all tokens is {total}: the weights hold NaN or "
                "overflow, or the device computes wrongly"
            )
    return tokens, sums


def _ids_of(lm: LanguageModel, texts: Any) -> list[list[int]]:
    """Encode texts; without a preprocessor they must be rows of ids."""
    if lm.preprocessor is not None:
        return lm.encode_prompts([texts] if isinstance(texts, str) else texts, lm.preprocessor)
    if isinstance(texts, str) or any(isinstance(text, str) for text in texts):
        raise InvalidArgumentError("this model has no preprocessor: give rows of token ids")
    return rows_of_ids(texts, lm.backbone.config.vocab_size)


async def _sums(
    backbones: Sequence[GPT2Backbone], pieces: Sequence[Window], score: Score
) -> list[float]:
    batches = [pieces[first : first + BATCH] for first in range(0, len(pieces), BATCH)]
    sums = [await _batch_sums(backbones, batch, score) for batch in batches]
    return [math.fsum(column) for column in zip(*sums, strict=True)]


async def _batch_sums(
    backbones: Sequence[GPT2Backbone], batch: Sequence[Window], score: Score
) -> list[float]:
    """Return the sums of a batch of windows, padded on the right, where padding has no effect."""
    as_uint32 = backbones[0].as_uint32
    longest = max(len(window.ids) for window in batch)
    dtypes = " ".join(backbone.dtype for backbone in backbones)
    pace = WorkPace(backbones[0].device, dtypes)
    sums: list[list[float]] = []
    async with tidy("evaluation"):
        caches = [backbone.new_cache(len(batch), longest) for backbone in backbones]
        rows = min(map(chunk_rows, backbones, caches))
        step = max(1, rows // len(batch))
        for begin in range(0, longest, step):
            end = min(begin + step, longest)
            ids = [_filled(window.ids[begin:end], end - begin, 0) for window in batch]
            targets = [
                _filled(window.targets[begin:end], end - begin, NO_TARGET) for window in batch
            ]
            with tidy() as scope:
                ids_there = as_uint32(ids)
                hidden = [
                    await residual(backbone, ids_there, cache, begin, pace)
                    for backbone, cache in zip(backbones, caches, strict=True)
                ]
                found = await _scores(backbones, hidden, list(chain(*targets)), score, pace)
                scores = scope.escape(found)
            for piece in scores:
                sums.append([math.fsum(await values.data()) for values in piece])
                for values in piece:
                    values.dispose()
    return [math.fsum(column) for column in zip(*sums, strict=True)]


async def _scores(
    backbones: Sequence[GPT2Backbone],
    hidden: Sequence[Tensor],
    targets: Sequence[int],
    score: Score,
    pace: WorkPace,
) -> list[Sequence[Tensor]]:
    """Return the scores of each model's residual stream ``hidden`` [B, T, D], in chunks."""
    head = backbones[0].weights.lm_head
    most = max(1, LOGIT_BYTES // (4 * head.out_features * len(backbones)))
    work = 2 * head.out_features * head.in_features
    most = fitting_rows(backbones[0], most, work)
    scores = []
    for first in range(0, len(targets), most):
        wanted = targets[first : first + most]
        if set(wanted) == {NO_TARGET}:
            continue
        await pace.make_room(work * len(wanted) * len(backbones), hidden[0])
        with tidy() as scope:
            logits = [
                _logits(backbone, states, first, len(wanted))
                for backbone, states in zip(backbones, hidden, strict=True)
            ]
            scores.append(scope.escape(score(logits, backbones[0].as_uint32(wanted))))
    return scores


def _logits(backbone: GPT2Backbone, hidden: Tensor, first: int, count: int) -> Tensor:
    """Return logits [count, V] from position ``first`` on, counted over all rows."""
    width = hidden.shape[-1]
    states = ops.slice(hidden.view((hidden.size // width, width)), (first, 0), (count, width))
    return backbone.logits(states)


def _filled(values: list[int], length: int, value: int) -> list[int]:
    return values + [value] * (length - len(values))
