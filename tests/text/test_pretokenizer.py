"""Both splitters split all texts identically, and the generated classes are up to date."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable

import make_codepoint_classes
import pytest
import regex

from gpt2_wgpu.text import codepoint_classes
from gpt2_wgpu.text.pretokenizer import regex_splitter, split_words, standard_splitter

SAME_UNICODE = (
    make_codepoint_classes.assigned_code_points() == codepoint_classes.ASSIGNED_CODE_POINTS
)
needs_same_unicode = pytest.mark.skipif(
    not SAME_UNICODE, reason="the installed regex knows another Unicode version"
)


def code_points(ranges: str) -> set[int]:
    bounds = [[int(bound, 16) for bound in item.split("-")] for item in ranges.split()]
    return {point for pair in bounds for point in range(pair[0], pair[-1] + 1)}


def same_splits(frame: str, points: Iterable[int]) -> bool:
    text = "".join(frame.format(chr(point)) for point in points)
    return standard_splitter()(text) == regex_splitter()(text)


@needs_same_unicode
@pytest.mark.parametrize("plane", range(17))
@pytest.mark.slow
def test_splitters_agree_on_every_code_point(plane: int) -> None:
    assert same_splits("a{0}1 {0}\n", range(plane << 16, (plane + 1) << 16))


@needs_same_unicode
@pytest.mark.parametrize("frame", ["{0}", "1{0}a", " {0}{0}'s", "\t{0} ", "!{0}!"])
@pytest.mark.slow
def test_splitters_agree_on_assigned_code_points_between_others(frame: str) -> None:
    assigned = make_codepoint_classes.matching_ranges(r"[^\p{Cn}\p{Co}]")
    assert same_splits(frame, (at for low, high in assigned for at in range(low, high + 1)))


@needs_same_unicode
def test_splitters_agree_on_random_text() -> None:
    rng = random.Random(1)
    likely = " \n\t\r\x0b\x1c\x85\xa0\u2003'stremvld1a²é½\u0301٣字🙂_-."
    for _ in range(20_000):
        text = "".join(
            rng.choice(likely) if rng.random() < 0.8 else chr(rng.randrange(sys.maxunicode + 1))
            for _ in range(rng.randrange(1, 24))
        )
        assert standard_splitter()(text) == regex_splitter()(text), ascii(text)


@pytest.mark.parametrize("splitter", [regex_splitter(), standard_splitter()])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("abc123", ["abc", "123"]),
        ("Hello\n\nHello", ["Hello", "\n", "\n", "Hello"]),
        ("a b  c", ["a", " b", " ", " c"]),
        ("can't we'll I'D", ["can", "'t", " we", "'ll", " I", "'", "D"]),
        ("can''t", ["can", "''", "t"]),
        ("x \x1c y", ["x", " \x1c", " y"]),  # U+001C is white space to re, but not to Unicode
        ("end  ", ["end", "  "]),
        ("¿qué? 日本語です 12½", ["¿", "qué", "?", " 日本語です", " 12½"]),
    ],
)
def test_known_splits(splitter, text: str, words: list[str]) -> None:
    assert splitter(text) == words


def test_split_loses_nothing() -> None:
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    assert "".join(split_words(text)) == text


def test_committed_classes_are_what_the_script_writes() -> None:
    committed = make_codepoint_classes.TARGET.read_text(encoding="utf-8")
    assert len(committed) <= 40_000
    letters, numbers, spaces = (
        code_points(ranges)
        for ranges in (
            codepoint_classes.LETTERS,
            codepoint_classes.NUMBERS,
            codepoint_classes.SPACES,
        )
    )
    assert not letters & numbers and not letters & spaces and not numbers & spaces
    assert set(map(ord, "azAZéЖ字")) <= letters
    assert set(map(ord, "0½٣")) <= numbers
    assert set(map(ord, " \n\u3000\x85")) <= spaces
    if SAME_UNICODE:
        written = make_codepoint_classes.render()
        assert written.replace(regex.__version__, codepoint_classes.REGEX_VERSION) == committed
