"""Vocabulary: tokens, their ids and their bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.byte_symbols import BYTE_TO_SYMBOL, symbols_to_bytes

MAX_ID = 2**31 - 1


class Vocabulary:
    """Token ↔ id. Ids need not be contiguous.

    Args:
        ids: token, in GPT-2's byte symbols → id, both unique.
        verbatim: tokens that are plain text, not byte symbols (special tokens).
        added: additional tokens → id, in plain text. They take precedence over ``ids``: a token
            with two ids is encoded as the added one (both decode), and of two tokens with one id
            the added one is decoded (as in transformers' slow tokenizers).

    Raises:
        TokenizerError: not a mapping of str to distinct integers in [0, 2³¹), a token without a
            UTF-8 form, or a verbatim token is missing.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        verbatim: Collection[str] = (),
        added: Mapping[str, int] | None = None,
    ) -> None:
        added = {} if added is None else added
        self.plain_ids = dict(tokens_of(ids, "the vocabulary"))
        """Token → id of the vocabulary without added tokens; merges refer to these."""
        self.ids = {**self.plain_ids, **tokens_of(added, "added_tokens")}
        _reject_surrogates(self.ids)
        self._tokens = {**_by_id(self.plain_ids), **_by_id(added)}
        self._verbatim = frozenset({*verbatim, *added})
        for token in sorted(self._verbatim - self.ids.keys()):
            raise TokenizerError(
                f"cannot find token {shown(token)} in the vocabulary: add it or do not name it "
                "as special"
            )
        self._bytes: dict[int, bytes] = {}
        self._used: list[int] | None = None  # ids in order
        self.byte_ids = [self.plain_ids.get(BYTE_TO_SYMBOL[byte], -1) for byte in range(256)]
        """Id of each byte's symbol; -1 if it is not in the vocabulary."""

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, token_id: object) -> bool:
        """Return whether the id is in the vocabulary."""
        return isinstance(token_id, int) and token_id in self._tokens

    def unused_ids(self, below: int) -> list[int]:
        """Return the ids in ``[0, below)`` that belong to no token, ascending."""
        if self._used is None:
            self._used = sorted(self._tokens)
        if below <= len(self._used) and self._used[below - 1] == below - 1:
            return []  # contiguous, the usual case
        bounds = [-1, *(used for used in self._used if used < below), below]
        return [unused for low, high in pairwise(bounds) for unused in range(low + 1, high)]

    def by_text(self) -> dict[str, int]:
        """Return token → id, one-to-one: without tokens whose id belongs to an added token."""
        return {token: i for token, i in self.ids.items() if self._tokens[i] == token}

    def token_of(self, token_id: int) -> str:
        """Return the token of an id, or raise TokenizerError."""
        try:
            return self._tokens[token_id]
        except (KeyError, TypeError):
            raise TokenizerError(
                f"id {shown(token_id)} is not in the vocabulary of {len(self)} tokens"
            ) from None

    def id_of(self, token: str) -> int:
        """Return the id of a token, or raise TokenizerError."""
        try:
            return self.ids[token]
        except (KeyError, TypeError):
            raise TokenizerError(
                f"token {shown(token)} is not in the vocabulary; tokens are written in byte "
                "symbols ('Ġat' for ' at')"
            ) from None

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of an id, or raise TokenizerError."""
        data = self._bytes.get(token_id)
        if data is None:
            token = self.token_of(token_id)
            data = token.encode("utf-8") if token in self._verbatim else symbols_to_bytes(token)
            self._bytes[token_id] = data
        return data


def tokens_of(ids: Mapping[str, int], name: str) -> Mapping[str, int]:
    """Return ``ids``; TokenizerError if they are not a mapping of tokens to ids."""
    if not isinstance(ids, Mapping):
        raise TokenizerError(f"{name} must map tokens to ids, not be a {type(ids).__name__}")
    for token, token_id in ids.items():
        if not isinstance(token, str):
            raise TokenizerError(f"{name}: tokens must be str, not {shown(token)}")
        is_integer = isinstance(token_id, int) and not isinstance(token_id, bool)
        if not (is_integer and 0 <= token_id <= MAX_ID):
            raise TokenizerError(
                f"{name} gives token {shown(token)} the id {shown(token_id)}: ids are integers in "
                f"[0, {MAX_ID}]"
            )
    return ids


def _by_id(ids: Mapping[str, int]) -> dict[int, str]:
    """Return id → token; TokenizerError if two tokens have one id."""
    tokens: dict[int, str] = {}
    for token, token_id in ids.items():
        other = tokens.setdefault(token_id, token)
        if other != token:
            raise TokenizerError(
                f"the vocabulary gives id {token_id} to both {shown(other)} and {shown(token)}"
            )
    return tokens


def _reject_surrogates(tokens: Iterable[str]) -> None:
    for token in tokens:
        try:
            token.encode("utf-8")
        except UnicodeEncodeError:
            raise TokenizerError(
                f"the vocabulary's token {shown(token)} holds a lone surrogate, so it has no UTF-8"
            ) from None
