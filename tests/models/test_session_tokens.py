"""Tokens of a session: which were given, and which are dropped."""

from __future__ import annotations

import pytest

from gpt2_wgpu.errors import ContextLengthError
from gpt2_wgpu.models.session_tokens import SessionTokens, common_prefix


def tokens_of(policy="error", max_length=20, start=0):
    """A prompt of 5, 4 generated, 3 given and 2 generated."""
    tokens = SessionTokens(max_length, policy)
    tokens.append([0, 1])
    tokens.append([2, 3, 4])
    tokens.ids += [5, 6, 7, 8]
    tokens.append([9, 10, 11])
    tokens.ids += [12, 13]
    tokens.start = start
    return tokens


def test_what_was_given():
    tokens = tokens_of()
    assert tokens.given == [(0, 5), (9, 12)]
    assert tokens.prompt == 12


@pytest.mark.parametrize(
    ("length", "given"),
    [(13, [(0, 5), (9, 12)]), (10, [(0, 5), (9, 10)]), (9, [(0, 5)]), (3, [(0, 3)]), (0, [])],
)
def test_truncated(length, given):
    tokens = tokens_of()
    tokens.truncate(length)
    assert (tokens.ids, tokens.given) == ([*range(length)], given)
    tokens.append([7])
    after = [*given, (length, length + 1)]
    if given and given[-1][1] == length:
        after = [*given[:-1], (given[-1][0], length + 1)]
    assert tokens.given == after


@pytest.mark.parametrize(
    ("start", "count", "given"),
    [
        (0, 3, [(0, 2), (6, 9)]), (0, 5, [(4, 7)]), (0, 10, [(0, 2)]), (0, 12, []),
        (1, 3, [(0, 2), (6, 9)]), (1, 6, [(0, 1), (3, 6)]), (1, 9, [(0, 3)]), (1, 12, [(0, 1)]),
    ],
)  # fmt: skip
def test_dropped(start, count, given):
    tokens = tokens_of("slide", start=start)
    tokens.drop(count)
    assert tokens.ids == [*range(start), *range(start + count, 14)]
    assert (tokens.given, tokens.dropped) == (given, count)


@pytest.mark.parametrize(
    ("policy", "max_length", "new", "dropped"),
    [
        ("error", 15, 5, 0), ("error", 14, 1, None),
        ("truncate_left", 14, None, 7), ("truncate_left", 15, None, 0),
        ("truncate_left", 20, 6, 0), ("truncate_left", 20, 7, 1), ("truncate_left", 20, 18, 12),
        ("truncate_left", 20, 19, None), ("truncate_left", 4, None, 12),
        ("slide", 15, 100, 0), ("slide", 14, 1, 7), ("slide", 9, None, 10),
    ],
)  # fmt: skip
def test_room(policy, max_length, new, dropped):
    tokens = tokens_of("slide", start=1)
    tokens.policy, tokens.max_length = policy, max_length
    if dropped is None:
        with pytest.raises(ContextLengthError):
            tokens.room_for(new)
        return
    assert tokens.room_for(new) == dropped


def test_common_prefix():
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == common_prefix([1, 2, 4], [1, 2]) == 2
    assert common_prefix([], [1]) == 0
