"""Matching of special tokens in text, as in transformers' slow tokenizers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.shown import odd_item, shown

RULES = ("lstrip", "rstrip", "single_word")
"""Matching rules: strip white space on the left or right; match only between spaces or at the
ends of the text."""

TokenRules = Mapping[str, frozenset[str]]


def split_at_tokens(
    text: str, tokens: frozenset[str], rules: TokenRules | None = None
) -> list[tuple[str, bool]]:
    """Split ``text`` at ``tokens``: non-empty pieces, each with whether it is a token.

    The longest of several matches at one position is taken. ``rules`` are applied from left to
    right, as in ``PreTrainedTokenizer.tokenize`` of transformers 4.
    """
    if not tokens:
        return [(text, False)] if text else []
    pieces = [piece for piece in _pattern(tokens).split(text) if piece]
    if rules:
        for index, piece in enumerate(pieces):
            if piece in tokens and piece in rules:
                _apply(rules[piece], pieces, index)
    return [(piece, piece in tokens) for piece in pieces if piece]


def _apply(rules: frozenset[str], pieces: list[str], index: int) -> None:
    """Apply a token's rules to the pieces around it."""
    token = pieces[index]
    left = pieces[index - 1] if index else ""
    right = pieces[index + 1] if index + 1 < len(pieces) else ""
    if "rstrip" in rules and right:
        pieces[index + 1] = right.lstrip()
    if "lstrip" in rules and left:
        pieces[index - 1] = left.rstrip()
    if "single_word" not in rules:
        return
    if left and left[-1] != " ":
        pieces[index - 1] += token
        pieces[index] = ""
    elif right and right[0] != " ":
        pieces[index + 1] = token + pieces[index + 1]
        pieces[index] = ""


def token_list(tokens: Iterable[str] | None, name: str) -> list[str]:
    """Return distinct tokens in order; a str is rejected, as iterating it would give letters.

    Raises:
        TokenizerError: not an iterable of non-empty str; ``name`` is its name in the message.
    """
    if tokens is None:
        return []
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        raise TokenizerError(f"{name} must be a list of non-empty str, not {shown(tokens)}")
    found = list(tokens)
    if odd := odd_item(found, lambda token: isinstance(token, str) and token != ""):
        raise TokenizerError(f"{name} must be a list of non-empty str, but {odd}")
    return list(dict.fromkeys(found))


def checked_rules(rules: Any) -> dict[str, frozenset[str]]:
    """Return token → rules, without tokens that have none.

    Raises:
        TokenizerError: not a mapping of str to lists of `RULES`.
    """
    if not isinstance(rules, Mapping):
        raise TokenizerError(f"token_rules must map tokens to rules, not be {shown(rules)}")
    checked = {}
    for token, given in rules.items():
        if not isinstance(token, str):
            raise TokenizerError(f"token_rules: tokens must be str, not {shown(token)}")
        names = token_list(given, f"the rules of token {shown(token)}")
        if unknown := [name for name in names if name not in RULES]:
            raise TokenizerError(
                f"token {shown(token)} has the rule {shown(unknown[0])}: rules are "
                f"{', '.join(RULES)}"
            )
        if names:
            checked[token] = frozenset(names)
    return checked


@lru_cache(maxsize=64)
def _pattern(tokens: frozenset[str]) -> re.Pattern[str]:
    ordered = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("(" + "|".join(map(re.escape, ordered)) + ")")
