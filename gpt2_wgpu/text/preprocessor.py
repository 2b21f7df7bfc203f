"""GPT-2 preprocessor: texts → model input arrays, model output → texts."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import odd_item, shown
from gpt2_wgpu.text.gpt2_tokenizer import GPT2Tokenizer
from gpt2_wgpu.text.special_tokens import token_list
from gpt2_wgpu.text.start_end_packer import StartEndPacker, checked_length
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids, rows_of_mask
from gpt2_wgpu.validation import made_from

AllowedSpecial = Collection[str] | Literal["all"]
"""Special tokens to recognise in a text, or "all"."""


class GPT2CausalLMPreprocessor:
    """KerasHub's ``GPT2CausalLMPreprocessor``: tokenization and packing, and their inverse.

    Arrays are NumPy arrays (int32, bool), or nested lists where NumPy is not installed; one str
    gives [T], a list of str [B, T]. Differs from KerasHub where KerasHub silently loses text:
    ``add_start_token=False`` applies to prompts, too, a prompt that does not fit is an error, an
    empty prompt always becomes the start token, and special tokens in a text are plain text
    unless they are allowed.

    Args:
        tokenizer: a ``GPT2Tokenizer``; its own ``sequence_length`` is ignored.
        sequence_length: length of the packed rows.
        add_start_token: whether to prepend the tokenizer's start token, if it has one
            (``<|endoftext|>`` in GPT-2).
        add_end_token: whether to append the end token to training texts; prompts never get one.
        allowed_special: special tokens to recognise in a text, or "all" (tiktoken's convention).
            All others are plain text.

    Raises:
        InvalidArgumentError: ``sequence_length`` is not a positive integer, or
            ``allowed_special`` is neither "all" nor a list of tokens of the vocabulary.
    """

    def __init__(
        self,
        tokenizer: GPT2Tokenizer,
        sequence_length: int = 1024,
        add_start_token: bool = True,
        add_end_token: bool = True,
        allowed_special: AllowedSpecial = (),
    ) -> None:
        if not isinstance(tokenizer, GPT2Tokenizer):
            raise InvalidArgumentError(
                f"tokenizer must be a GPT2Tokenizer, not {shown(tokenizer)}: make one with "
                "GPT2Tokenizer.from_directory(...)"
            )
        self.tokenizer = tokenizer
        self.allowed_special = allowed_special
        self.add_start_token = add_start_token
        self.add_end_token = add_end_token
        self.sequence_length = sequence_length

    @property
    def sequence_length(self) -> int:
        """Default length of packed rows."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value: int) -> None:
        self._sequence_length = checked_length(value)

    @property
    def allowed_special(self) -> AllowedSpecial:
        """Default special tokens to recognise in a text."""
        return self._allowed_special

    @allowed_special.setter
    def allowed_special(self, value: AllowedSpecial) -> None:
        self.tokenizer.encode("", value)  # raises for an unknown token
        self._allowed_special = (
            "all" if isinstance(value, str) else tuple(token_list(value, "allowed_special"))
        )

    @property
    def packer(self) -> StartEndPacker:
        """A new packer of training rows with the current settings."""
        return StartEndPacker(
            sequence_length=self.sequence_length,
            start_value=self.tokenizer.start_token_id,
            end_value=self.tokenizer.end_token_id,
            pad_value=self.tokenizer.pad_token_id,
            return_padding_mask=True,
        )

    def __call__(
        self,
        x: str | Sequence[str],
        y: Any = None,
        sample_weight: Any = None,
        sequence_length: int | None = None,
    ) -> tuple[dict[str, Any], Any, Any]:
        """Same as ``call``."""
        return self.call(x, y, sample_weight, sequence_length)

    def call(
        self,
        x: str | Sequence[str],
        y: Any = None,
        sample_weight: Any = None,
        sequence_length: int | None = None,
    ) -> tuple[dict[str, Any], Any, Any]:
        """Make training data: input ids, target ids (shifted by one) and sample weights.

        Args:
            x: one text or several; longer ones are truncated.
            y: ignored with a warning; the targets follow from ``x``.
            sample_weight: likewise.
            sequence_length: T; default: the object's own.

        Returns:
            ({"token_ids": int32, "padding_mask": bool}, targets int32, weights bool), each [T] or
            [B, T].

        Raises:
            InvalidArgumentError: ``x`` is neither a text nor a non-empty list of texts, or
                ``sequence_length`` is not a positive integer.
        """
        if y is not None or sample_weight is not None:
            warnings.warn(
                "y and sample_weight are ignored: both follow from the text", stacklevel=2
            )
        length = self._length(sequence_length)
        rows = [self.tokenizer.encode(text, self.allowed_special) for text in _texts(x)]
        ids, mask = self.packer(
            _batch(rows, x),
            sequence_length=length + 1,  # one more, as inputs and targets are shifted by one
            add_start_value=self.add_start_token,
            add_end_value=self.add_end_token,
        )
        inputs = {"token_ids": _columns(ids, 0, -1), "padding_mask": _columns(mask, 0, -1)}
        return inputs, _columns(ids, 1, None), _columns(mask, 1, None)

    def encode_prompts(
        self,
        prompts: Sequence[str],
        sequence_length: int | None = None,
        allowed_special: AllowedSpecial | None = None,
    ) -> list[list[int]]:
        """Encode prompts, with the start token; an empty prompt becomes the start token alone.

        Args:
            prompts: texts; a str counts as one text.
            sequence_length: maximal length of a prompt, in tokens; None for no limit.
            allowed_special: default: the object's own.

        Returns:
            One list of ids per prompt.

        Raises:
            ContextLengthError: a prompt is longer; the message gives both counts.
            InvalidArgumentError: a prompt is empty, and the tokenizer has no start token.
        """
        allowed = self.allowed_special if allowed_special is None else allowed_special
        start = self.tokenizer.start_token_id
        rows, texts = [], _texts(prompts)
        for index, prompt in enumerate(texts):
            which = f"prompt {index}" if len(texts) > 1 else "the prompt"
            ids = self.tokenizer.encode(prompt, allowed)
            if start is not None and (self.add_start_token or not ids):
                ids.insert(0, start)
            if not ids:
                raise InvalidArgumentError(
                    f"{which} is empty, and the tokenizer has no start token: give some text"
                )
            if sequence_length is not None and len(ids) > sequence_length:
                raise ContextLengthError(
                    f"{which} has {len(ids)} tokens (start token included), but only "
                    f"{sequence_length} fit: shorten it, or raise sequence_length (max_length of "
                    "generate) up to the model's context"
                )
            rows.append(ids)
        return rows

    def generate_preprocess(
        self,
        x: str | Sequence[str],
        sequence_length: int | None = None,
        allowed_special: AllowedSpecial | None = None,
    ) -> dict[str, Any]:
        """Encode and pack prompts for generation.

        Args:
            x: one prompt or several.
            sequence_length: T; default: the object's own.
            allowed_special: default: the object's own.

        Returns:
            {"token_ids": int32, "padding_mask": bool}, each [T] or [B, T], padded on the right.

        Raises:
            ContextLengthError: a prompt is longer than T (KerasHub truncates it silently).
            InvalidArgumentError: as in ``call``.
        """
        length = self._length(sequence_length)
        ids, mask = self.packer(
            _batch(self.encode_prompts(x, length, allowed_special), x),
            sequence_length=length,
            add_start_value=False,  # encode_prompts has put it there
            add_end_value=False,
        )
        return {"token_ids": ids, "padding_mask": mask}

    def generate_postprocess(self, x: Mapping[str, Any]) -> str | list[str]:
        """Decode packed ids to text, without padding and special tokens.

        Args:
            x: {"token_ids", "padding_mask"}, each [T] or [B, T], lists or arrays.

        Returns:
            A str for [T], a list of str for [B, T].

        Raises:
            InvalidArgumentError: a key is missing, or an entry is not an integer or bool.
            ShapeError: ids and mask differ in shape.
            TokenizerError: an id is not in the vocabulary.
        """
        if not isinstance(x, Mapping):
            raise InvalidArgumentError(
                f"generate_postprocess takes a dict of token_ids and padding_mask, not {shown(x)}"
            )
        missing = [name for name in ("token_ids", "padding_mask") if name not in x]
        if missing:
            raise InvalidArgumentError(
                f"generate_postprocess needs {shown(missing[0])}; got {shown(list(x))}"
            )
        ids, mask = rows_of_ids(x["token_ids"]), rows_of_mask(x["padding_mask"])
        shapes = [len(row) for row in ids], [len(row) for row in mask]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"token_ids has rows of lengths {shown(shapes[0])}, padding_mask of "
                f"{shown(shapes[1])}"
            )
        special = set(self.tokenizer.special_token_ids)
        texts = [
            self.tokenizer.decode(
                [i for i, real in zip(row, flags, strict=True) if real and i not in special]
            )
            for row, flags in zip(ids, mask, strict=True)
        ]
        return texts[0] if is_one_row(x["token_ids"]) else texts

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON-serialisable values, with nested tokenizer."""
        return {
            "tokenizer": self.tokenizer.get_config(),
            "sequence_length": self.sequence_length,
            "add_start_token": self.add_start_token,
            "add_end_token": self.add_end_token,
            "allowed_special": (
                self.allowed_special
                if isinstance(self.allowed_special, str)
                else list(self.allowed_special)
            ),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GPT2CausalLMPreprocessor:
        """Build a preprocessor from the result of ``get_config``."""
        if isinstance(config, Mapping) and "tokenizer" in config:
            config = {**config, "tokenizer": GPT2Tokenizer.from_config(config["tokenizer"])}
        return made_from(cls, config)

    def _length(self, sequence_length: int | None) -> int:
        return self.sequence_length if sequence_length is None else checked_length(sequence_length)


def _texts(x: Any) -> list[str]:
    texts = [x] if isinstance(x, str) else x.tolist() if hasattr(x, "tolist") else x
    if not isinstance(texts, (list, tuple)):
        raise InvalidArgumentError(f"expected a str or a list of str, not {shown(x)}")
    if odd := odd_item(texts, lambda text: isinstance(text, str)):
        raise InvalidArgumentError(f"expected a str or a list of str, but {odd}")
    return list(texts)


def _batch(rows: list[list[int]], x: object) -> list[Any]:
    """Return the packer's input: a single row if ``x`` is a str, else all rows."""
    if not rows:
        raise InvalidArgumentError("expected at least one text, got an empty list")
    return rows[0] if isinstance(x, str) else rows


def _columns(rows: Any, start: int, stop: int | None) -> Any:
    """Return a copy of columns [start:stop] of one row or a batch, of lists or an array."""
    if hasattr(rows, "ndim"):
        return rows[..., start:stop].copy()
    return rows[start:stop] if is_one_row(rows) else [row[start:stop] for row in rows]
