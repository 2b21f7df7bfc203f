"""The heap-based merge loop against the plain loop of OpenAI's encoder."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text.merge_table import MergeTable


def plain_bpe(symbols: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Merge the leftmost pair of the lowest rank until none is left."""
    while True:
        ranked = [
            (merges.index(pair), at) for at, pair in enumerate(pairwise(symbols)) if pair in merges
        ]
        if not ranked:
            return symbols
        _, at = min(ranked)
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[str, str]]:
    tokens, merges = ["a", "b", "c"], []
    for _ in range(draw(st.integers(0, 12))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
    return draw(st.permutations(merges))


@given(merge_lists(), st.text("abc", max_size=24))
def test_heap_equals_plain_loop(merges: list[tuple[str, str]], word: str) -> None:
    names = list(dict.fromkeys(["a", "b", "c", *(left + right for left, right in merges)]))
    vocabulary = {name: token_id for token_id, name in enumerate(names)}
    table = MergeTable(vocabulary, merges)
    ids = table.apply([vocabulary[letter] for letter in word])
    assert [names[token_id] for token_id in ids] == plain_bpe(list(word), merges)


def test_both_spellings_and_the_version_line() -> None:
    vocabulary = {"a": 0, "b": 1, "ab": 2, "#version": 3, "#versiona": 4}
    assert MergeTable(vocabulary, ["#version: 0.2", "a b"]).apply([0, 1, 1]) == [2, 1]
    assert MergeTable(vocabulary, [["a", "b"]]).apply([0, 1, 1]) == [2, 1]
    # Only the first line can be the version; later ones are merges like any other.
    assert MergeTable(vocabulary, ["a b", "#version a"]).apply([3, 0]) == [4]


@pytest.mark.parametrize(
    ("merges", "named"),
    [
        (["a x"], "'x'"),
        (["x a"], "'x'"),
        (["b a"], "'ba'"),
        (["a"], "'a'"),
        (["a b c"], "'a b c'"),
        ([""], "''"),
        ([("a", 1)], "1"),
        ([None], "None"),
        (["a b", "a b"], "twice"),
        (None, "None"),
    ],
)
def test_bad_merges_are_named(merges: Any, named: str) -> None:
    with pytest.raises(TokenizerError, match=named):
        MergeTable({"a": 0, "b": 1, "ab": 2}, merges)
