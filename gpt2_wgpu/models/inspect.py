"""Views of activations and of a step's time, which notebooks show as tables: ``gw.inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from gpt2_wgpu.models.activation_cache import ActivationCache
from gpt2_wgpu.models.step_timing import step_times, step_times_async
from gpt2_wgpu.models.target_tokens import positions_of
from gpt2_wgpu.validation import instance, integer
from gpt2_wgpu.webgpu import sync

__all__ = [
    "AttentionView",
    "LensView",
    "attention",
    "attention_async",
    "lens",
    "lens_async",
    "step_times",
    "step_times_async",
]

MOST = 48  # tokens at the end of a text that a table shows
_COLOUR = "208, 138, 46"


@dataclass(frozen=True)
class AttentionView:
    """Attention patterns of one layer; a notebook shows a table for each head.

    Attributes:
        layer: from 0.
        tokens: text of each token, without padding.
        patterns: weights [head, query, key].
    """

    layer: int
    tokens: list[str]
    patterns: list[list[list[float]]]

    def _repr_html_(self) -> str:
        first = max(0, len(self.tokens) - MOST)
        tokens = self.tokens[first:]
        head = "".join(f"<th>{_shown(token)}</th>" for token in tokens)
        tables = []
        for index, pattern in enumerate(self.patterns):
            rows = "".join(
                f"<tr><th>{_shown(token)}</th>{''.join(map(_weight, row[first:]))}</tr>"
                for token, row in zip(tokens, pattern[first:], strict=True)
            )
            tables.append(
                f"<details{' open' if index == 0 else ''}><summary>layer {self.layer}, head "
                f"{index}: row = token that attends, column = token it attends to</summary>"
                f"<table><tr><th></th>{head}</tr>{rows}</table></details>"
            )
        return "".join(tables)


@dataclass(frozen=True)
class LensView:
    """Logit lens; a notebook shows a table of layers and positions.

    Attributes:
        layers: labels, as of ``LogitLens``.
        tokens: text of the token at each position.
        predictions: [layer, position]: the most likely next tokens, with their probabilities.
    """

    layers: list[str]
    tokens: list[str]
    predictions: list[list[list[tuple[str, float]]]]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{_shown(token)}</th>" for token in self.tokens)
        rows = "".join(
            f"<tr><th>{label}</th>{''.join(map(_prediction, row))}</tr>"
            for label, row in zip(self.layers, self.predictions, strict=True)
        )
        return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def attention(cache: ActivationCache, layer: int, row: int = 0) -> AttentionView:
    """Return the attention of a layer, for a text of the batch; blocks (``attention_async``).

    Args:
        cache: of ``run_with_cache``, with ``hook_pattern`` of that layer.
        layer: from 0; negative from the last.
        row: of the batch.

    Raises:
        InvalidArgumentError: the pattern was not computed, there is no such layer or row, or
            ``cache`` is none.
    """
    return sync(attention_async(cache, layer, row), "attention_async(...)")


async def attention_async(cache: ActivationCache, layer: int, row: int = 0) -> AttentionView:
    """Async counterpart of :func:`attention`."""
    instance("cache", cache, ActivationCache)
    pattern = cache["pattern", layer]
    integer("row", row, 0, pattern.shape[0] - 1)
    values: Any = (await pattern.data()).tolist()
    own = cache.positions(row)
    patterns = [[[head[query][key] for key in own] for query in own] for head in values[row]]
    return AttentionView(layer % cache.num_layers, cache.token_texts(row), patterns)


def lens(
    cache: ActivationCache, top: int = 5, positions: Sequence[int] | None = None, row: int = 0
) -> LensView:
    """Return the logit lens of a text of the batch; blocks (``lens_async``).

    Args:
        cache: of ``run_with_cache``, with all ``hook_resid_pre`` and the last ``hook_resid_post``.
        top: number of predictions.
        positions: of the tokens of the row, without padding: from 0, negative from the end;
            default: all.
        row: of the batch.

    Raises:
        InvalidArgumentError: as of ``ActivationCache.logit_lens``, or ``cache`` is none.
        NumericalError: logits are not finite.
    """
    return sync(lens_async(cache, top, positions, row), "lens_async(...)")


async def lens_async(
    cache: ActivationCache, top: int = 5, positions: Sequence[int] | None = None, row: int = 0
) -> LensView:
    """Async counterpart of :func:`lens`."""
    instance("cache", cache, ActivationCache)
    integer("row", row, 0, len(cache.token_ids) - 1)
    own = cache.positions(row)
    if positions is not None:
        own = [own[place] for place in positions_of(positions, len(own))]
    found = cache.logit_lens(top, positions=own)
    try:
        data = await found.data()
    finally:
        found.dispose()
    ids: Any = data["ids"].tolist()
    chances: Any = data["probabilities"].tolist()
    predictions = [
        [
            [(cache.token_text(token), chance) for token, chance in zip(*cell, strict=True)]
            for cell in zip(layer_ids[row], layer_chances[row], strict=True)
        ]
        for layer_ids, layer_chances in zip(ids, chances, strict=True)
    ]
    texts = [cache.token_text(cache.token_ids[row][position]) for position in own]
    return LensView(found.labels, texts, predictions)


def _weight(weight: float) -> str:
    return f'<td style="background: rgba({_COLOUR}, {weight:.2f})" title="{weight:.3f}"></td>'


def _prediction(top: list[tuple[str, float]]) -> str:
    text, chance = top[0]
    others = escape(", ".join(f"{text!r} {100 * chance:.1f} %" for text, chance in top))
    style = f"background: rgba({_COLOUR}, {0.6 * chance:.2f})"
    return f'<td style="{style}" title="{others}">{_shown(text)} {100 * chance:.0f} %</td>'


def _shown(text: str) -> str:
    return escape(text.replace("\n", "⏎").replace(" ", "\u00a0"))
