"""Packing of token rows to a fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.preprocessing_layer import PreprocessingLayer
from gpt2_wgpu.text.token_arrays import as_array, is_one_row, rows_of_ids
from gpt2_wgpu.validation import made_from

Token = int | str


class StartEndPacker(PreprocessingLayer):
    """Packer: adds start and end tokens and truncates or pads rows to ``sequence_length``.

    Content is truncated at its end so that start and end tokens always fit. If
    ``sequence_length`` is too small for these alone, InvalidArgumentError is raised (KerasHub
    returns longer rows).

    Args:
        sequence_length: length of every packed row.
        start_value: a token (int or str), several, or None.
        end_value: likewise.
        pad_value: padding token; None is 0, or "" for rows of str.
        return_padding_mask: whether to return a mask, too: False for padding.
        name: a name, for ``get_config``.
        padding_side: "right" or "left".
        **kwargs: other arguments of a Keras layer (``dtype``, ``trainable``), without effect.

    Raises:
        InvalidArgumentError: a value has the wrong kind.
    """

    def __init__(
        self,
        sequence_length: int,
        start_value: Token | Sequence[Token] | None = None,
        end_value: Token | Sequence[Token] | None = None,
        pad_value: Token | None = None,
        return_padding_mask: bool = False,
        name: str | None = None,
        padding_side: Literal["right", "left"] = "right",
        **kwargs: Any,
    ) -> None:
        self.take_layer_arguments(name, kwargs)
        if not isinstance(padding_side, str) or padding_side not in ("right", "left"):
            raise InvalidArgumentError(
                f"padding_side must be 'right' or 'left', not {shown(padding_side)}"
            )
        if pad_value is not None:
            _tokens(pad_value, "pad_value")
        self.sequence_length = checked_length(sequence_length)
        self.start_value = _tokens(start_value, "start_value")
        self.end_value = _tokens(end_value, "end_value")
        self._given = start_value, end_value
        self.pad_value = pad_value
        self.return_padding_mask = return_padding_mask
        self.padding_side = padding_side

    def __call__(
        self,
        inputs: Any,
        sequence_length: int | None = None,
        add_start_value: bool = True,
        add_end_value: bool = True,
    ) -> Any:
        """Same as ``call``."""
        return self.call(inputs, sequence_length, add_start_value, add_end_value)

    def call(
        self,
        inputs: Any,
        sequence_length: int | None = None,
        add_start_value: bool = True,
        add_end_value: bool = True,
    ) -> Any:
        """Pack one row or a batch.

        Args:
            inputs: tokens, [T] or [B, T] (rows may differ in length): lists or arrays of integers,
                or lists of str.
            sequence_length: default: the constructor's.
            add_start_value: whether to prepend ``start_value``.
            add_end_value: whether to append ``end_value``.

        Returns:
            The packed rows, [sequence_length] or [B, sequence_length], int32; rows of str are
            lists. With ``return_padding_mask``: (rows, mask), the mask of dtype bool.

        Raises:
            InvalidArgumentError: start and end tokens exceed ``sequence_length``, or
                entries are neither all integers nor all str.
        """
        length = (
            self.sequence_length if sequence_length is None else checked_length(sequence_length)
        )
        start = self.start_value if add_start_value else []
        end = self.end_value if add_end_value else []
        room = length - len(start) - len(end)
        if room < 0:
            raise InvalidArgumentError(
                f"sequence_length {length} has no room for {len(start)} start and {len(end)} end "
                f"tokens: make it at least {len(start) + len(end)}"
            )
        rows = _rows_of_tokens(inputs)
        kind = _kind([*start, *end, *(token for row in rows for token in row)])
        pad = kind() if self.pad_value is None else self.pad_value
        if not isinstance(pad, kind):
            raise InvalidArgumentError(
                f"pad_value {shown(pad)} does not fit rows of {kind.__name__}"
            )
        filled = [[*start, *row[:room], *end] for row in rows]
        packed = [self._pad(row, length, pad) for row in filled]
        mask = [self._pad([True] * len(row), length, False) for row in filled]
        if is_one_row(inputs):
            [packed], [mask] = packed, mask
        result = as_array(packed, "int32") if kind is int else packed
        return (result, as_array(mask, "bool")) if self.return_padding_mask else result

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON-serialisable values."""
        return {
            "name": self.name,
            "sequence_length": self.sequence_length,
            "start_value": _as_given(self.start_value, self._given[0]),
            "end_value": _as_given(self.end_value, self._given[1]),
            "pad_value": self.pad_value,
            "return_padding_mask": self.return_padding_mask,
            "padding_side": self.padding_side,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StartEndPacker:
        """Build a packer from the result of ``get_config``."""
        return made_from(cls, config)

    def _pad(self, row: list[Any], length: int, pad: object) -> list[Any]:
        padding = [pad] * (length - len(row))
        return row + padding if self.padding_side == "right" else padding + row


def checked_length(sequence_length: object) -> int:
    """Return a sequence length; InvalidArgumentError if it is not a positive integer."""
    is_integer = isinstance(sequence_length, int) and not isinstance(sequence_length, bool)
    if not isinstance(sequence_length, int) or not is_integer or sequence_length <= 0:
        raise InvalidArgumentError(
            f"sequence_length must be a positive integer, not {shown(sequence_length)}"
        )
    return sequence_length


def _tokens(value: Any, name: str) -> list[Token]:
    """Return a special value as a list of tokens, all int or all str."""
    if value is None:
        return []
    tokens = list(value) if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(token, bool) or not isinstance(token, (int, str)) for token in tokens):
        raise InvalidArgumentError(
            f"{name} must be an int, a str or a list of either, not {shown(value)}"
        )
    return tokens


def _as_given(tokens: list[Token], given: Any) -> Any:
    """Return a special value in the form given to the constructor, unless changed since."""
    is_list = isinstance(given, (list, tuple))
    return given if not is_list and tokens == _tokens(given, "given") else list(tokens)


def _rows_of_tokens(inputs: Any) -> list[list[Any]]:
    batch = [inputs] if is_one_row(inputs) else inputs
    are_lists = isinstance(batch, (list, tuple)) and all(
        isinstance(row, (list, tuple)) for row in batch
    )
    if are_lists and any(isinstance(token, str) for row in batch for token in row):
        return [list(row) for row in batch]
    return [*rows_of_ids(inputs, name="inputs")]


def _kind(tokens: list[Token]) -> type[int] | type[str]:
    """Return the common type of all tokens; int if there are none."""
    kinds = {str if isinstance(token, str) else type(token) for token in tokens} or {int}
    if kinds == {int}:
        return int
    if kinds == {str}:
        return str
    raise InvalidArgumentError("tokens, start, end and pad values must be all int or all str")
