"""The cases of TF.js's memory tests, for this API.

Here are globals_test and engine_test on scopes; counters and buffers are in test_tfjs_buffers,
tensor_util_test in test_containers, every other form of a scope in test_scope_forms. Where TF.js
has a bug (views counted twice, asynchronous bodies that leak), it is tested for what should be.
"""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ScopeError
from tests.memory.tiny import new

pytestmark = pytest.mark.usefixtures("no_leak")


# --- globals_test: tidy ---------------------------------------------------------------------------


def test_returns_a_tensor(count):
    def body():
        a, b = new(), new()
        for _ in range(5):
            a = a + b
        assert count() == 7
        return a

    result = gw.tidy(body)
    assert count() == 1
    assert result.tolist() == [6.0, 12.0, 18.0]
    result.dispose()
    assert count() == 0


def test_several_disposes_count_once(count):
    a, b = new(), new()
    for expected in (1, 1):
        a.dispose()
        assert count() == expected
    gw.dispose([a, a, b, {"again": b}])
    assert count() == 0


@pytest.mark.parametrize("value", [1, True, "hello", None, 2.5, b"x", (), print, object()])
def test_other_values_come_back_unchanged(value, count):
    def body():
        new()
        return value

    assert gw.tidy(body) is value
    assert count() == 0


def test_returns_lists_of_tensors(count):
    a = new()

    def body():
        first = a + a
        second = first + a
        a * 2
        return [first, second]

    first, second = gw.tidy(body)
    assert count() == 3
    assert (first.tolist(), second.tolist()) == ([2.0, 4.0, 6.0], [3.0, 6.0, 9.0])
    gw.dispose([a, first, second])


def test_without_a_return_nothing_stays(count):
    a = new()
    gw.tidy(lambda: [None for _ in range(10) if (a + a) is None])
    assert count() == 1
    assert a.tolist() == [1.0, 2.0, 3.0]
    a.dispose()


def test_nested_scopes_count_level_by_level(count):
    a = new()

    def innermost():
        c = a + a
        c = c + a
        assert count() == 4  # a, b and two here
        return c

    def inner():
        c = gw.tidy(innermost)
        assert count() == 3
        d = gw.tidy("second", lambda: [c + 1, {"deep": c + 2}])
        assert count() == 5
        return d[1]["deep"]

    def outer():
        b = new()
        result = gw.tidy(inner)
        assert count() == 3  # a, b, result
        return result + b

    result = gw.tidy(outer)
    assert count() == 2
    assert result.tolist() == [6.0, 10.0, 14.0]
    gw.dispose([a, result])


@pytest.mark.parametrize(
    "arguments", [(None,), (1,), ("a", "b"), (len, "a"), ("a", None), ("a", len, 1), (1, len)]
)
def test_argument_errors(arguments, count):
    with pytest.raises(InvalidArgumentError, match="a name, a function, or both"):
        gw.tidy(*arguments)
    assert gw.memory().num_scopes == 0


def test_returning_a_tensor_of_outside_does_not_move_it():
    with gw.tidy():
        outer = new()
        with gw.tidy():
            middle = gw.tidy(lambda: gw.tidy(lambda: outer))
        assert middle is outer and not outer.disposed
    assert outer.disposed


def test_keep_in_a_nested_scope_is_for_good(count):
    kept = []

    def body():
        kept.append(gw.tidy(lambda: gw.keep(new())))
        outer = new()
        kept.append(gw.tidy(lambda: gw.keep(outer)))

    gw.tidy(lambda: gw.tidy(body))
    assert count() == 2 and not any(tensor.disposed for tensor in kept)
    gw.dispose(kept)
    assert count() == 0


def test_a_raise_frees_everything_and_restores_the_stack(count):
    def body():
        new()
        with gw.tidy("inner"):
            new()
            gw.start_scope("left open")
            new()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        gw.tidy(body)
    assert gw.memory().num_scopes == 0 and count() == 0


# --- engine_test: scopes of callbacks -------------------------------------------------------------


def test_scopes_of_callbacks(count):
    gw.start_scope("outer")
    a = new()
    gw.start_scope("inner")
    b = new()
    assert gw.memory().num_scopes == 2
    assert gw.end_scope({"b": [b]}) == {"b": [b]}
    assert not b.disposed and count() == 2
    gw.end_scope()
    assert a.disposed and b.disposed and gw.memory().num_scopes == 0


def test_ending_without_a_start_is_our_own_error():
    with pytest.raises(ScopeError, match="end_scope without start_scope"):
        gw.end_scope()


def test_allocation_outside_of_a_scope_stays(count):
    a = new()
    gw.tidy(new).dispose()
    assert count() == 1 and not a.disposed
    a.dispose()
