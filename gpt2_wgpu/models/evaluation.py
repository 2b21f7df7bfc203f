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
from typing import Any, NamedTuple, Protocol

from gpt2_wgpu import nn
from gpt2_wgpu.errors import DeviceLostError, InvalidArgumentError
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.hooks import not_finite
from gpt2_wgpu.models.pace import WorkPace
from gpt2_wgpu.models.prefill import cache_bytes, chunk_rows, fitting_rows, residual
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.nn import NO_TARGET, KVCache
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.text import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids
from gpt2_wgpu.validation import integer

BATCH = 8  # windows per batch
LOGIT_BYTES = 32 << 20  # max size of a chunk of logits, which are not read back


@dataclass(frozen=True)
class Score:
    """Function (logits [R, V] of each model, targets [R]) → tensors [R] or [R, columns].

    ``results``: number of columns of all tensors.
    """

    of: Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]
    results: int


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
    tokens, (nats,) = await _totals("perplexity", [lm], texts, stride, LOSSES)
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
    tokens, (nats, same) = await _totals("divergence", models, texts, stride, DIVERGENCES)
    return Divergence(nats / tokens, same / tokens, tokens)


def _losses(logits: Sequence[Tensor], targets: Tensor) -> Sequence[Tensor]:
    (ours,) = logits
    return [nn.target_loss(ours, targets)]


def _divergences(logits: Sequence[Tensor], targets: Tensor) -> Sequence[Tensor]:
    ours, theirs = logits
    return nn.divergence(ours, theirs, targets)


LOSSES, DIVERGENCES = Score(_losses, 1), Score(_divergences, 2)


async def predictions(
    lm: LanguageModel, texts: Any, stride: int | None, top: int
) -> tuple[bool, list[list[int]], list[TokenLogprobs]]:
    """Return whether ``texts`` is one text or row, and the predicted ids of each, with details."""
    one, rows = _rows_of(lm, texts)
    found = await _values("logprobs", [lm], rows, stride, top_score(top))
    details = [logprobs_of_row(columns, top) for columns in found]
    return one, [row[1:] for row in rows], details


async def logprobs(lm: LanguageModel, texts: Any, stride: int | None) -> Any:
    """See ``GPT2CausalLM.logprobs``."""
    one, rows = _rows_of(lm, texts)
    found = await _values("logprobs", [lm], rows, stride, LOSSES)
    results = [[-nats for nats in losses] for (losses,) in found]
    return results[0] if one else results


def _rows_of(lm: LanguageModel, texts: Any) -> tuple[bool, list[list[int]]]:
    """Return whether ``texts`` is one text or row, and rows of ids."""
    try:
        has_text = len(texts) > 0 and any(isinstance(text, str) for text in texts)
    except TypeError:
        raise InvalidArgumentError(
            f"logprobs takes texts or token ids, not {shown(texts)}"
        ) from None
    if isinstance(texts, str) or has_text:
        return isinstance(texts, str), _ids_of(lm, texts)
    rows = rows_of_ids(texts, lm.backbone.config.vocab_size) if len(texts) else []
    return len(texts) > 0 and is_one_row(texts), rows


class TokenLogprobs(NamedTuple):
    """How each token of a row was predicted; the fields of ``GenerationDetails``."""

    logprobs: list[float]
    top_logprobs: list[dict[int, float]]
    ranks: list[int]
    entropies: list[float]


async def token_logprobs(
    lm: LanguageModel, prompts: Sequence[list[int]], new: Sequence[list[int]], top: int
) -> list[TokenLogprobs]:
    """Return for each row the log-probability of each new id, and the ``top`` most likely ids."""
    rows = [
        Window([*prompt, *ids][:-1], [NO_TARGET] * (len(prompt) - 1) + ids)
        for prompt, ids in zip(prompts, new, strict=True)
    ]
    pieces = [[row] if row.ids else [] for row in rows]
    found = await _values_of("generate", [lm], pieces, top_score(top))
    return [logprobs_of_row(columns, top) for columns in found]


def top_score(top: int) -> Score:
    """Return the score whose results `logprobs_of_row` takes, with the ``top`` most likely ids."""

    def of(logits: Sequence[Tensor], targets: Tensor) -> list[Tensor]:
        odds = nn.token_odds(logits[0], targets)
        return [odds, *ops.top_k(logits[0], top)] if top else [odds]

    return Score(of, 4 + 2 * top)


def logprobs_of_row(columns: Sequence[Sequence[float]], top: int) -> TokenLogprobs:
    """Return the results of `top_score` for each token."""
    losses, entropies, ranks, totals = columns[:4]
    best, ids = zip(*columns[4 : 4 + top], strict=True), zip(*columns[4 + top :], strict=True)
    tops: list[dict[int, float]] = [{} for _ in losses]
    if top:
        tops = [
            {int(each): value - total for each, value in zip(row, values, strict=True)}
            for row, values, total in zip(ids, best, totals, strict=True)
        ]
    return TokenLogprobs([-nats for nats in losses], tops, list(map(int, ranks)), list(entropies))


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
    rows = await _values(function, models, _ids_of(models[0], texts), stride, score)
    tokens = sum(len(columns[0]) for columns in rows)
    if not tokens:
        raise InvalidArgumentError(f"{function}: the texts contain no token to predict")
    return tokens, [math.fsum(chain(*column)) for column in zip(*rows, strict=True)]


async def _values(
    function: str,
    models: Sequence[LanguageModel],
    rows: Sequence[Sequence[int]],
    stride: int | None,
    score: Score,
) -> list[list[list[float]]]:
    """Return the values of ``score`` for each row, each result, each token but the first."""
    context = min(lm.backbone.config.n_positions for lm in models)
    stride = max(1, context // 2) if stride is None else integer("stride", stride, 1, context)
    pieces = [list(windows(row, context, stride)) for row in rows]
    return await _values_of(function, models, pieces, score)


async def _values_of(
    function: str,
    models: Sequence[LanguageModel],
    rows: Sequence[Sequence[Window]],
    score: Score,
) -> list[list[list[float]]]:
    """Return the values of ``score`` for each row of windows, each result, each target."""
    backbones = [lm.backbone for lm in models]
    pieces = [(index, piece) for index, row in enumerate(rows) for piece in row]
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i][1].ids))  # minimises padding
    device = backbones[0].device
    sorted_pieces = [pieces[i][1] for i in order]
    try:
        found = await _window_values(backbones, sorted_pieces, score)
    except DeviceLostError:
        for backbone in backbones:
            await recover(backbone, device)
        found = await _window_values(backbones, sorted_pieces, score)
    by_piece = dict(zip(order, found, strict=True))
    results: list[list[list[float]]] = [[[] for _ in range(score.results)] for _ in rows]
    for i, (index, piece) in enumerate(pieces):
        for column, values in zip(results[index], by_piece[i], strict=True):
            column += [
                value
                for value, target in zip(values, piece.targets, strict=True)
                if target != NO_TARGET
            ]
    for row in results:
        for column in row:
            if not math.isfinite(total := sum(column)):
                raise not_finite(f"{function}: the sum over all tokens is {total}")
    return results


def _ids_of(lm: LanguageModel, texts: Any) -> list[list[int]]:
    """Encode texts; without a preprocessor they must be rows of ids."""
    if lm.preprocessor is not None:
        return lm.encode_prompts([texts] if isinstance(texts, str) else texts, lm.preprocessor)
    if isinstance(texts, str) or any(isinstance(text, str) for text in texts):
        raise InvalidArgumentError("this model has no preprocessor: give rows of token ids")
    return rows_of_ids(texts, lm.backbone.config.vocab_size)


async def _window_values(
    backbones: Sequence[GPT2Backbone], pieces: Sequence[Window], score: Score
) -> list[list[list[float]]]:
    batches = [pieces[first : first + BATCH] for first in range(0, len(pieces), BATCH)]
    return [window for batch in batches for window in await batch_values(backbones, batch, score)]


async def batch_values(
    backbones: Sequence[GPT2Backbone],
    batch: Sequence[Window],
    score: Score,
    caches: Sequence[KVCache] = (),
    start: int = 0,
) -> list[list[list[float]]]:
    """Return the values of each window, each result and each position.

    The windows are padded on the right, where padding has no effect. ``caches``: with the keys and
    values of the ``start`` positions, which come before the windows; they get those of the windows.
    """
    as_uint32 = backbones[0].as_uint32
    longest = max(len(window.ids) for window in batch)
    dtypes = " ".join(backbone.dtype for backbone in backbones)
    pace = WorkPace(backbones[0].device, dtypes)
    values: list[list[list[float]]] = [[[] for _ in range(score.results)] for _ in batch]
    async with tidy("evaluation"):
        caches = caches or [backbone.new_cache(len(batch), longest) for backbone in backbones]
        rows = min(map(chunk_rows, backbones, map(cache_bytes, caches)))
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
                    await residual(backbone, ids_there, cache, start + begin, pace)
                    for backbone, cache in zip(backbones, caches, strict=True)
                ]
                found = await _scores(backbones, hidden, list(chain(*targets)), score, pace)
                scores = scope.escape(found)
            columns = await _columns(scores, score.results, len(batch) * (end - begin))
            for column, flat in enumerate(columns):
                for row, window in enumerate(batch):
                    part = flat[row * (end - begin) : (row + 1) * (end - begin)]
                    values[row][column] += part[: max(0, len(window.ids) - begin)]
    return values


async def _columns(
    scores: Sequence[tuple[int, Sequence[Tensor]]], count: int, length: int
) -> list[list[float]]:
    """Read and dispose ``scores``, and return ``count`` columns of all positions."""
    columns = [[0.0] * length for _ in range(count)]
    for first, piece in scores:
        found: list[Sequence[float]] = []
        for each in piece:
            values = (await each.data()).tolist()
            found += [values] if each.ndim == 1 else zip(*values, strict=True)
            each.dispose()
        for column, part in zip(columns, found, strict=True):
            column[first : first + len(part)] = part
    return columns


async def _scores(
    backbones: Sequence[GPT2Backbone],
    hidden: Sequence[Tensor],
    targets: Sequence[int],
    score: Score,
    pace: WorkPace,
) -> list[tuple[int, Sequence[Tensor]]]:
    """Return the scores of each model's residual stream ``hidden`` [B, T, D], in chunks.

    Each with its first position; chunks without a target are left out.
    """
    head = backbones[0].weights.lm_head
    most = max(1, LOGIT_BYTES // (4 * head.out_features * len(backbones)))
    work = 2 * head.out_features * head.in_features
    most = fitting_rows(backbones[0], most, work)
    scores: list[tuple[int, Sequence[Tensor]]] = []
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
            found = score.of(logits, backbones[0].as_uint32(wanted))
            scores.append((first, scope.escape(found)))
    return scores


def _logits(backbone: GPT2Backbone, hidden: Tensor, first: int, count: int) -> Tensor:
    """Return logits [count, V] from position ``first`` on, counted over all rows."""
    width = hidden.shape[-1]
    states = ops.slice(hidden.view((hidden.size // width, width)), (first, 0), (count, width))
    return backbone.logits(states)


def _filled(values: list[int], length: int, value: int) -> list[int]:
    return values + [value] * (length - len(values))
