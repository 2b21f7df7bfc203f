"""``GPT2CausalLMPreprocessor``: texts → model input arrays, model output → texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError, ShapeError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.preprocessor import AllowedSpecial, GPT2Preprocessor, batch_of, texts_of
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids, rows_of_mask


class GPT2CausalLMPreprocessor(GPT2Preprocessor):
    """KerasHub's ``GPT2CausalLMPreprocessor``: tokenization and packing, and their inverse.

    Arguments, arrays and errors as in ``GPT2Preprocessor``. Differs from KerasHub where KerasHub
    silently loses text: ``add_start_token=False`` applies to prompts, too, a prompt that does not
    fit is an error, an empty prompt always becomes the start token, and special tokens in a text
    are plain text unless they are allowed. Prompts never get an end token.
    """

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
        # One more, as inputs and targets are shifted by one.
        ids, mask = self.pack_texts(x, self.checked_or_own(sequence_length) + 1)
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
        rows, texts = [], texts_of(prompts)
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
                    f"{sequence_length} fit: shorten it",
                    ", or raise sequence_length (max_length of generate) up to the model's context",
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
        length = self.checked_or_own(sequence_length)
        ids, mask = self.packer(
            batch_of(self.encode_prompts(x, length, allowed_special), x),
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


def _columns(rows: Any, start: int, stop: int | None) -> Any:
    """Return a copy of columns [start:stop] of one row or a batch, of lists or an array."""
    if hasattr(rows, "ndim"):
        return rows[..., start:stop].copy()
    return rows[start:stop] if is_one_row(rows) else [row[start:stop] for row in rows]
