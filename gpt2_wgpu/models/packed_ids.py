"""Packed ids, ``{"token_ids", "padding_mask"}``: input and output of ``generate_step``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.token_arrays import as_array, is_one_row, rows_of_ids, rows_of_mask

_DTYPES: dict[str, Literal["int32", "bool"]] = {"token_ids": "int32", "padding_mask": "bool"}
Rows = list[list[int]]
T = TypeVar("T")


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


def prompts_of(ids: Rows, mask: Sequence[Sequence[bool]]) -> tuple[Rows, list[int]]:
    """Return the ids of each row where its mask is True, and the padding before them.

    InvalidArgumentError for a mask with two runs of True, or none.
    """
    prompts, starts = [], []
    for index, (row, real) in enumerate(zip(ids, mask, strict=True)):
        length = sum(real)
        start = real.index(True) if length else 0
        if not length or not all(real[start : start + length]):
            raise InvalidArgumentError(
                f"row {index} of padding_mask must be True for the prompt (at least one token, "
                f"without gaps) and False around it; it is {shown(real)}"
            )
        prompts.append(row[start : start + length])
        starts.append(start)
    return prompts, starts


def packed(
    rows: Rows, padding: Rows, scalar: bool, starts: Sequence[int] | None = None
) -> dict[str, Any]:
    """Pack ``rows``, each written over its ``padding``, with a mask, True for ``rows``.

    ``starts``: place of the first id of each row; default: 0. ``scalar``: return the only row as
    [T], not as [1, T].
    """
    token_ids, mask = [], []
    for row, around, start in zip(rows, padding, starts or [0] * len(rows), strict=True):
        end = start + len(row)
        token_ids.append(around[:start] + row + around[end:])
        mask.append([start <= place < end for place in range(len(around))])
    values: dict[str, list[Any]] = {"token_ids": token_ids, "padding_mask": mask}
    return {
        key: as_array(value[0] if scalar else value, _DTYPES[key]) for key, value in values.items()
    }


def repeated(inputs: Any, count: int, vocabulary_size: int) -> Any:
    """Return packed ids with each row ``count`` times, in [B * count, T]."""
    if count == 1:
        return inputs
    ids, mask = rows_of(inputs, vocabulary_size)
    prompts, starts = prompts_of(ids, mask)

    def times(values: list[Any]) -> list[Any]:
        return [value for value in values for _ in range(count)]

    return packed(times(prompts), times(ids), False, times(starts))


def shortened(inputs: Any, max_new_tokens: int, vocabulary_size: int) -> dict[str, Any]:
    """Return packed ids without the columns that no row's ``max_new_tokens`` reach."""
    ids, mask = rows_of(inputs, vocabulary_size)
    prompts, starts = prompts_of(ids, mask)
    ends = [start + len(prompt) for start, prompt in zip(starts, prompts, strict=True)]
    width = max(ends) + max_new_tokens
    return packed(prompts, [row[:width] for row in ids], is_one_row(inputs["token_ids"]), starts)


def for_each_row(of_prompts: list[T], rows: int) -> list[T]:
    """Return values of prompts for ``rows`` results, of which a prompt may have several beams."""
    beams = rows // max(1, len(of_prompts))
    return [value for value in of_prompts for _ in range(beams)] if beams > 1 else of_prompts


def new_ids(output: Any, inputs: Any, vocabulary_size: int) -> Rows:
    """Return the new ids of each row of ``output`` of ``generate_step``."""
    ids, mask = rows_of(output, vocabulary_size)
    _, prompt_mask = rows_of(inputs, vocabulary_size)
    return [
        [token for token, real in zip(row, flags, strict=True) if real][sum(given) :]
        for row, flags, given in zip(ids, mask, for_each_row(prompt_mask, len(ids)), strict=True)
    ]


def cut(
    output: Any, inputs: Any, vocabulary_size: int, keep: Callable[[int, Sequence[int]], int | None]
) -> dict[str, Any]:
    """Return ``output`` of ``generate_step`` with ``keep(row, new ids)`` new ids (None: all)."""
    ids, mask = rows_of(inputs, vocabulary_size)
    prompts, starts = prompts_of(ids, mask)
    new = new_ids(output, inputs, vocabulary_size)
    prompts, ids = for_each_row(prompts, len(new)), for_each_row(ids, len(new))
    starts = for_each_row(starts, len(new))
    rows = [
        prompt + row[: keep(index, row)]
        for index, (prompt, row) in enumerate(zip(prompts, new, strict=True))
    ]
    return {**output, **packed(rows, ids, is_one_row(output["token_ids"]), starts)}


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
    padding, _ = rows_of(inputs, vocabulary_size)
    new = new_ids(output, inputs, vocabulary_size)
    padding = for_each_row(padding, len(new))
    return {**output, **packed(new, padding, is_one_row(output["token_ids"]))}
