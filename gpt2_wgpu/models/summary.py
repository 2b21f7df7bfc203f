"""Table of a model's layers and parameters, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpt2_wgpu.layers.layer import Layer

Row = Sequence[str]


def layer_rows(layers: Iterable[Layer]) -> list[Row]:
    """Return name, class and number of parameters of each layer."""
    return [(layer.name, type(layer).__name__, f"{layer.count_params():,}") for layer in layers]


def summary_of(title: str, rows: Sequence[Row], total: str, preprocessor: Any = None) -> str:
    """Return the table with its title, the line below it, and the line of the tokenizer above."""
    table = [("Layer", "Class", "Parameters"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    lines = [title]
    if preprocessor is not None:
        tokenizer = preprocessor.tokenizer
        kind, size = type(tokenizer).__name__, tokenizer.vocabulary_size()
        lines.append(f"Tokenizer: {kind}, {size:,} tokens")
    rule = "-" * (sum(widths) + 4)
    for index, (name, kind, count) in enumerate(table):
        lines.append(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {count:>{widths[2]}}")
        if index == 0:
            lines.append(rule)
    return "\n".join([*lines, rule, total])
