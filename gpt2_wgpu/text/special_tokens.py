"""Finding special tokens in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from gpt2_wgpu.errors import TokenizerError


def split_at_tokens(text: str, tokens: frozenset[str]) -> list[str]:
    """Cut ``text`` at each of ``tokens``; plain text and tokens alternate, plain text first.

    Of several tokens that match at one place the longest wins.
    """
    return _pattern(tokens).split(text) if tokens else [text]


def token_list(tokens: Iterable[str] | None, name: str) -> list[str]:
    """Return distinct tokens in order; a lone str is refused, as it would count letter by letter.

    Raises:
        TokenizerError: not an iterable of non-empty str; the message calls it ``name``.
    """
    if tokens is None:
        return []
    found = list(tokens) if isinstance(tokens, Iterable) else []
    is_list = isinstance(tokens, Iterable) and not isinstance(tokens, str)
    if not is_list or not all(isinstance(token, str) and token for token in found):
        raise TokenizerError(f"{name} must be a list of non-empty str, not {tokens!r}")
    return list(dict.fromkeys(found))


@lru_cache(maxsize=64)
def _pattern(tokens: frozenset[str]) -> re.Pattern[str]:
    ordered = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("(" + "|".join(map(re.escape, ordered)) + ")")
