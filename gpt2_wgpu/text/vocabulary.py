"""A vocabulary: tokens, their ids and the bytes they stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text.byte_symbols import BYTE_TO_SYMBOL, symbols_to_bytes

MAX_ID = 2**31 - 1


class Vocabulary:
    """Token ↔ id, both unique.

    Args:
        ids: token, in GPT-2's byte symbols → id.
        verbatim: tokens that stand for their own text and not for byte symbols (special ones).

    Raises:
        TokenizerError: not a mapping of str to distinct integers in [0, 2³¹), a token without a
            UTF-8 form, or a verbatim token is missing.
    """

    def __init__(self, ids: Mapping[str, int], verbatim: Collection[str] = ()) -> None:
        if not isinstance(ids, Mapping):
            raise TokenizerError(
                f"the vocabulary must map tokens to ids, not be a {type(ids).__name__}"
            )
        self.ids = dict(ids)
        self._tokens: dict[int, str] = {}
        for token, token_id in self.ids.items():
            self._add(token, token_id)
        _refuse_surrogates(self.ids)
        self._verbatim = frozenset(verbatim)
        for token in sorted(self._verbatim - self.ids.keys()):
            raise TokenizerError(
                f"cannot find token {token!r} in the vocabulary: add it there or do not name it "
                "as special"
            )
        self._bytes: dict[int, bytes] = {}
        self.byte_ids = [self.ids.get(BYTE_TO_SYMBOL[byte], -1) for byte in range(256)]
        """The id of each byte's symbol; -1 where the vocabulary lacks it."""

    def __len__(self) -> int:
        return len(self.ids)

    def token_of(self, token_id: int) -> str:
        """Return the token of an id, or raise TokenizerError."""
        try:
            return self._tokens[token_id]
        except KeyError:
            raise TokenizerError(
                f"id {token_id} is not in the vocabulary of {len(self)} tokens"
            ) from None

    def id_of(self, token: str) -> int:
        """Return the id of a token, or raise TokenizerError."""
        try:
            return self.ids[token]
        except KeyError:
            raise TokenizerError(
                f"token {token!r} is not in the vocabulary; tokens are written in byte symbols "
                "('Ġat' for ' at')"
            ) from None

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of an id, or raise TokenizerError."""
        data = self._bytes.get(token_id)
        if data is None:
            token = self.token_of(token_id)
            data = token.encode("utf-8") if token in self._verbatim else symbols_to_bytes(token)
            self._bytes[token_id] = data
        return data

    def _add(self, token: str, token_id: int) -> None:
        if not isinstance(token, str):
            raise TokenizerError(f"the vocabulary's tokens must be str, not {token!r}")
        is_integer = isinstance(token_id, int) and not isinstance(token_id, bool)
        if not (is_integer and 0 <= token_id <= MAX_ID):
            raise TokenizerError(
                f"the vocabulary gives token {token!r} the id {token_id!r}: ids are integers in "
                f"[0, {MAX_ID}]"
            )
        other = self._tokens.setdefault(token_id, token)
        if other != token:
            raise TokenizerError(
                f"the vocabulary gives id {token_id} to both {other!r} and {token!r}"
            )


def _refuse_surrogates(tokens: Iterable[str]) -> None:
    for token in tokens:
        try:
            token.encode("utf-8")
        except UnicodeEncodeError:
            raise TokenizerError(
                f"the vocabulary's token {token!r} holds a lone surrogate: it has no UTF-8 form"
            ) from None
