"""Packed ids, ``{"token_ids", "padding_mask"}``: input and output of ``generate_step``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.token_arrays import as_array, is_one_row, rows_of_ids, rows_of_mask

_DTYPES: dict[str, Literal["int32", "bool"]] = {"token_ids": "int32", "padding_mask": "bool"}
Rows = list[list[int]]


def rows_of(packed: Any, vocabulary_size: int) -> tuple[Rows, list[list[bool]]]:
    """Return ids and mask as lists of rows of equal length.

    InvalidArgumentError for a missing key, ids out of range or a mask of another shape.
    """
    if not isinstance(packed, Mapping):
        raise InvalidArgumentError(
            f"packed ids are a dict of token_ids and padding_mask, not {shown(packed)}"
        )
    missing = [key for key in _DTYPES if key not in packed]
    if missing:
        raise InvalidArgumentError(f"inputs lack {shown(missing[0])}; got {shown(list(packed))}")
    ids = rows_of_ids(packed["token_ids"], vocabulary_size, ragged=False)
    mask = rows_of_mask(packed["padding_mask"], ragged=False)
    if [len(row) for row in ids] != [len(row) for row in mask]:
        raise InvalidArgumentError(
            f"token_ids [{len(ids)}, {len(ids[0])}] and padding_mask "
            f"[{len(mask)}, {len(mask[0]) if mask else 0}] differ in shape"
        )
    return ids, mask


def prompts_of(ids: Rows, mask: Sequence[Sequence[bool]]) -> Rows:
    """Return the ids of each row where its mask is True: at its start.

    InvalidArgumentError for a mask that is True elsewhere, or nowhere.
    """
    prompts = []
    for index, (row, real) in enumerate(zip(ids, mask, strict=True)):
        length = sum(real)
        if not length or not all(real[:length]):
            raise InvalidArgumentError(
                f"row {index} of padding_mask must be True for the prompt (at least one "
                f"token), then False; it is {shown(real)}"
            )
        prompts.append(row[:length])
    return prompts


def packed(rows: Rows, padding: Rows, scalar: bool) -> dict[str, Any]:
    """Pack ``rows``, each followed by the end of its ``padding``, with a mask, True for ``rows``.

    ``scalar``: return the only row as [T], not as [1, T].
    """
    token_ids = [row + rest[len(row) :] for row, rest in zip(rows, padding, strict=True)]
    mask = [
        [True] * len(row) + [False] * (len(rest) - len(row))
        for row, rest in zip(rows, padding, strict=True)
    ]
    values: dict[str, list[Any]] = {"token_ids": token_ids, "padding_mask": mask}
    return {
        key: as_array(value[0] if scalar else value, _DTYPES[key]) for key, value in values.items()
    }


def masked(output: Any, hidden: Collection[int]) -> dict[str, Any]:
    """Return ``output`` with the mask set to False for the ids ``hidden``."""
    ids = rows_of_ids(output["token_ids"])
    flags = rows_of_mask(output["padding_mask"])
    shown = [
        [real and token not in hidden for token, real in zip(*row, strict=True)]
        for row in zip(ids, flags, strict=True)
    ]
    scalar = is_one_row(output["token_ids"])
    return {**output, "padding_mask": as_array(shown[0] if scalar else shown, "bool")}


def without_prompts(output: Any, inputs: Any, vocabulary_size: int) -> dict[str, Any]:
    """Return ``output`` of ``generate_step`` with new tokens moved to the front of each row."""
    ids, mask = rows_of(output, vocabulary_size)
    padding, prompt_mask = rows_of(inputs, vocabulary_size)
    new = [
        [token for token, real in zip(row, flags, strict=True) if real][sum(given) :]
        for row, flags, given in zip(ids, mask, prompt_mask, strict=True)
    ]
    return packed(new, padding, is_one_row(output["token_ids"]))
