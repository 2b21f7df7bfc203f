r"""GPT-2's pre-tokenizer: splits text into words; byte-pair merges never cross word boundaries.

The pattern is that of OpenAI's GPT-2 release (``encoder.py``). It needs Unicode properties, which
the ``regex`` package supports and the standard ``re`` does not. Where ``regex`` is not installed
(Pyodide), the same pattern is built for ``re`` from code-point classes generated with ``regex``
(`codepoint_classes`); both split every text identically.

TF.js implements this pattern incorrectly (letters and digits are not separated, only the first
space of a text is matched, bytes are UTF-16 units), and KerasHub's Python path does not split at
all ("Hello\n\nHello" gives one token for both newlines). This module follows OpenAI.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache

from gpt2_wgpu.text import codepoint_classes

Splitter = Callable[[str], list[str]]
"""Splits a text into words whose concatenation is the text."""

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
    r"""Return the splitter built on the standard ``re`` and the generated code-point classes.

    The ``\s`` of ``re`` also matches the separators U+001C..U+001F, so white space is a generated
    class, too.
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
    """Return ``regex_splitter()`` if ``regex`` is installed, else ``standard_splitter()``."""
    try:
        return regex_splitter()
    except ImportError:
        return standard_splitter()


def split_words(text: str) -> list[str]:
    """Split ``text`` into GPT-2's words; ``"".join(split_words(text)) == text``."""
    return best_splitter()(text)


def _class_body(ranges: str) -> str:
    r"""Return the body of a character class, ``\U00000041-\U0000005a...``, for ``"41-5a aa"``."""
    bounds = (item.split("-") for item in ranges.split())
    return "".join("-".join(rf"\U{int(bound, 16):08x}" for bound in pair) for pair in bounds)
