"""Tokens and positions that the methods of an ``ActivationCache`` take, as ids and indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.models.evaluation import LanguageModel
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import integer


def target_ids(lm: LanguageModel, name: str, tokens: Any, batch: int, positions: int) -> Tensor:
    """Return tokens as ids [B, T].

    Args:
        lm: the model, whose tokenizer encodes texts.
        name: name of the argument in error messages.
        tokens: one id, or a text of one token; one of either for each row; or ids [B, T].
        batch: B.
        positions: T.

    Raises:
        InvalidArgumentError: no such token, or a text is not one token.
        ShapeError: another shape.
    """
    ids = tokens
    if isinstance(tokens, str):
        ids = _id_of_text(lm, name, tokens)
    elif isinstance(tokens, list | tuple):
        ids = [_id_of_text(lm, name, each) if isinstance(each, str) else each for each in tokens]
    if hasattr(ids, "__index__") and not getattr(ids, "ndim", 0):
        ids = [ids] * batch
    rows = rows_of_ids(ids, lm.backbone.config.vocab_size, name)
    if len(rows) == 1 and len(rows[0]) == batch:
        rows = [[token] * positions for token in rows[0]]
    if [len(row) for row in rows] != [positions] * batch:
        raise ShapeError(
            f"{name} must be one token, {batch} tokens or ids [{batch}, {positions}], not "
            f"{shown(tokens)}"
        )
    return lm.backbone.as_uint32(rows)


def _id_of_text(lm: LanguageModel, name: str, text: str) -> int:
    """Return the id of a text of one token; InvalidArgumentError for another."""
    if lm.preprocessor is None:
        raise InvalidArgumentError(f"this model has no preprocessor: give {name} as ids")
    ids = lm.preprocessor.tokenizer.encode(text)
    if len(ids) != 1:
        raise InvalidArgumentError(
            f"{name}: {shown(text)} is {len(ids)} tokens, not one (a word in a text begins with a "
            "space)"
        )
    return ids[0]


def positions_of(positions: Sequence[int], length: int) -> list[int]:
    """Return positions from 0; InvalidArgumentError for no list, an empty one, or one not there."""
    if not hasattr(positions, "__iter__") or isinstance(positions, str | bytes):
        raise InvalidArgumentError(
            f"positions must be a list of positions, as [0, -1], not {shown(positions)}"
        )
    found = [integer("positions", each, -length, length - 1) % length for each in positions]
    if not found:
        raise InvalidArgumentError("positions is empty: give at least one, or None for all")
    return found
