"""Text and ids of a session."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.token_ids import check_rows
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import TokenReader
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.text.token_arrays import is_one_row, rows_of_ids


def encoded(
    model: CausalLM,
    tokens: str | Sequence[int],
    start: bool | None,
    allowed_special: AllowedSpecial | None = None,
) -> tuple[list[int], bool]:
    """Return the ids of a text or of ids, and whether the first is a start token.

    ``start``: whether a text gets one; None: as the preprocessor has it.

    Raises:
        InvalidArgumentError: neither a text nor one row of ids, or ids out of range.
    """
    vocabulary = model.backbone.config.vocab_size
    if not isinstance(tokens, str):
        if (
            isinstance(tokens, bytes | set)
            or not hasattr(tokens, "__len__")
            or (len(tokens) and not is_one_row(tokens))
        ):
            raise InvalidArgumentError(
                f"a session takes a str or one list of ids, not {shown(tokens)}"
            )
        return (rows_of_ids(tokens, vocabulary)[0] if len(tokens) else []), False
    preprocessor = model._require_preprocessor("a session then takes ids")
    tokenizer = preprocessor.tokenizer
    allowed = preprocessor.allowed_special if allowed_special is None else allowed_special
    ids = tokenizer.encode(tokens, allowed)
    check_rows([ids], tokenizer, vocabulary)
    wanted = preprocessor.add_start_token if start is None else start
    if not wanted or tokenizer.start_token_id is None:
        return ids, False
    return [tokenizer.start_token_id, *ids], True


def text_of(reader: TokenReader, ids: Sequence[int]) -> str:
    """Return the text of new tokens."""
    pieces = []
    for token in ids:
        pieces.append(reader.push(token))
        if reader.matched:
            return "".join(pieces)
    return "".join([*pieces, reader.flush()])
