"""GPT-2's pre-tokenizer: cuts text into the words that byte-pair encoding never crosses.

The pattern is the one of OpenAI's GPT-2 release (``encoder.py``). It needs Unicode properties,
which the ``regex`` package has and the standard ``re`` has not. Where ``regex`` cannot be imported
(a browser's Python) the same pattern is built for ``re`` from code-point classes that were
generated from ``regex`` (see ``make_codepoint_classes``); both split every text alike.

TF.js gets this pattern wrong (letters and digits are not separated, only the first space of a
text is seen, bytes are UTF-16 units) and KerasHub's Python path does not split at all
("Hello\\n\\nHello" gives one token for both newlines); OpenAI's behaviour is what is built here.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache

from gpt2_wgpu.text import codepoint_classes

Splitter = Callable[[str], list[str]]
"""Cuts a text into words; joined together again they are the text."""

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@cache
def regex_splitter() -> Splitter:
    """Return the splitter built on the ``regex`` package.

    Raises:
        ImportError: ``regex`` is not installed.
    """
    findall: Splitter = importlib.import_module("regex").compile(GPT2_PATTERN).findall
    return findall


@cache
def standard_splitter() -> Splitter:
    """Return the splitter built on the standard ``re`` and the generated code-point classes.

    ``re``'s own ``\\s`` also holds the separators U+001C..U+001F, so white space is a generated
    class too.
    """
    letters = _class_body(codepoint_classes.LETTERS)
    numbers = _class_body(codepoint_classes.NUMBERS)
    spaces = _class_body(codepoint_classes.SPACES)
    pattern = (
        "'s|'t|'re|'ve|'m|'ll|'d"
        f"| ?[{letters}]+| ?[{numbers}]+| ?[^{spaces}{letters}{numbers}]+"
        f"|[{spaces}]+(?![^{spaces}])|[{spaces}]+"
    )
    return re.compile(pattern).findall


@cache
def best_splitter() -> Splitter:
    """Return ``regex_splitter()`` where it can be had, ``standard_splitter()`` elsewhere."""
    try:
        return regex_splitter()
    except ImportError:
        return standard_splitter()


def split_words(text: str) -> list[str]:
    """Cut ``text`` into GPT-2's words; ``"".join(split_words(text)) == text`` always holds."""
    return best_splitter()(text)


def _class_body(ranges: str) -> str:
    """Turn ``"41-5a aa"`` into the inside of a character class, ``\\U00000041-\\U0000005a...``."""
    bounds = (item.split("-") for item in ranges.split())
    return "".join("-".join(rf"\U{int(bound, 16):08x}" for bound in pair) for pair in bounds)
