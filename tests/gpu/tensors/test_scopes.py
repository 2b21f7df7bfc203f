"""tidy, keep and dispose: freed and surviving tensors."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, make_dataclass
from threading import Thread
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ScopeError

pytestmark = pytest.mark.usefixtures("no_leak")


def new():
    return gw.tensor([1.0])


@dataclass
class Pair:
    left: gw.Tensor
    right: gw.Tensor
    note: str = "both"
    itself: list[Any] = field(default_factory=list)


Slots = make_dataclass("Slots", ["left", "right"], slots=True)


class TestFunction:
    def test_disposes_all_but_the_result(self):
        made = []

        def body():
            made.extend([new(), new()])
            return made[1]

        result = gw.tidy(body)
        assert result is made[1]
        assert made[0].disposed and not result.disposed
        result.dispose()

    @pytest.mark.parametrize("value", [None, 3, "text", [1, 2]])
    def test_returns_other_values_unchanged(self, value):
        assert gw.tidy("name", lambda: value) is value

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda a, b: [a, [b]],
            lambda a, b: (a, {"deep": {b}}),
            lambda a, b: {"a": a, "again": a, "b": frozenset([b])},
            Pair,
            lambda a, b: [Pair(a, b)],
            lambda a, b: deque([a, b]),
            Slots,
        ],
        ids=["lists", "sets", "mappings", "dataclass", "objects in lists", "deque", "slots"],
    )
    def test_finds_results_in_any_container(self, wrap):
        made = []

        def body():
            made.extend([new(), new(), new()])
            return wrap(made[0], made[1])

        result = gw.tidy(body)
        assert [t.disposed for t in made] == [False, False, True]
        gw.dispose(result)
        assert all(t.disposed for t in made)

    def test_finds_results_in_a_container_that_contains_itself(self):
        def body():
            pair = Pair(new(), new())
            pair.itself.append(pair)
            return pair

        pair = gw.tidy(body)
        assert not pair.left.disposed and not pair.right.disposed
        gw.dispose(pair)

    def test_disposes_and_goes_on_when_the_body_raises(self):
        made = []

        def body():
            made.append(new())
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            gw.tidy(body)
        assert made[0].disposed

    @pytest.mark.parametrize("arguments", [(3,), ("a", "b"), (print, "name"), ("a", print, 1)])
    def test_refuses_other_arguments(self, arguments):
        with pytest.raises(InvalidArgumentError, match="a name, a function, or both"):
            gw.tidy(*arguments)


class TestDecorator:
    def test_wraps_a_function(self):
        made = []

        @gw.tidy("step")
        def step(count, *, result):
            """Makes some."""
            made.extend(new() for _ in range(count))
            return made[result]

        assert step.__name__ == "step" and step.__doc__ == "Makes some."
        kept = step(3, result=1)
        assert [t.disposed for t in made] == [True, False, True]
        kept.dispose()
        step(2, result=0).dispose()

    def test_wraps_a_coroutine_function(self):
        made = []

        @gw.tidy()
        async def step():
            made.append(new())
            await asyncio.sleep(0)
            made.append(new())
            return made[1]

        asyncio.run(step()).dispose()
        assert made[0].disposed


class TestContextManager:
    def test_disposes_all_but_what_escapes(self):
        with gw.tidy() as scope:
            first, second = new(), new()
            assert scope.escape([first]) == [first]
        assert not first.disposed and second.disposed
        first.dispose()

    def test_disposes_when_the_body_raises(self):
        with pytest.raises(KeyError), gw.tidy():
            x = new()
            raise KeyError
        assert x.disposed

    def test_async(self):
        async def body():
            async with gw.tidy("steps") as scope:
                first = new()
                await first.data()
                second = new()
                return first, scope.escape(second)

        first, second = asyncio.run(body())
        assert first.disposed and not second.disposed
        second.dispose()

    def test_out_of_order_is_refused(self):
        outer, inner = gw.tidy("outer"), gw.tidy("inner")
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(ScopeError, match="'outer' is closed out of order"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        with pytest.raises(ScopeError, match="this tidy scope is not open"):
            inner.__exit__(None, None, None)
        x = new()
        outer.__exit__(None, None, None)  # now in order
        assert x.disposed


class TestNesting:
    def test_a_result_moves_up_one_scope(self):
        with gw.tidy():
            with gw.tidy():
                x = gw.tidy(new)
                assert not x.disposed
            assert x.disposed

        with gw.tidy():
            x = gw.tidy(lambda: gw.tidy(new))
        assert x.disposed

    def test_an_outer_tensor_lives_as_long_as_its_own_scope(self):
        with gw.tidy():
            x = new()
            assert gw.tidy(lambda: x) is x
            gw.tidy(lambda: None)
            assert not x.disposed
        assert x.disposed

    def test_a_tensor_made_before_is_left_alone(self):
        x = new()
        with gw.tidy() as scope:
            scope.escape(x)
        assert not x.disposed
        x.dispose()

    def test_what_was_disposed_inside_stays_so(self):
        with gw.tidy() as scope:
            x = new()
            x.dispose()
            scope.escape(x)
        assert x.disposed


class TestKeep:
    def test_outlives_every_scope(self):
        with gw.tidy():
            with gw.tidy():
                inner = gw.keep(new())
            outer = new()
            gw.tidy(lambda: gw.keep([outer]))
        assert not inner.disposed and not outer.disposed
        with gw.tidy() as scope:
            scope.escape([inner, outer])  # kept: adopted by no scope again
        assert gw.tidy(lambda: inner) is inner and not inner.disposed
        gw.dispose([inner, outer])

    def test_passes_other_values_through(self):
        assert gw.keep(5) == 5 and gw.keep(None) is None


class TestDispose:
    def test_takes_any_container_and_ignores_the_rest(self):
        a, b = new(), new()
        gw.dispose({"a": a, "list": [b, 3, None, "x", a], "f": print})
        assert a.disposed and b.disposed
        gw.dispose([a, None])


class TestConcurrency:
    def test_tasks_do_not_see_each_others_scopes(self):
        async def work(steps):
            async with gw.tidy() as scope:
                made = []
                for _ in range(steps):
                    made.append(new())
                    await asyncio.sleep(0)
                    assert not any(t.disposed for t in made)
                return made, scope.escape(made[-1])

        async def main():
            return await asyncio.gather(*[work(steps) for steps in (1, 5, 3)])

        for made, last in asyncio.run(main()):
            assert [t.disposed for t in made] == [True] * (len(made) - 1) + [False]
            last.dispose()

    @pytest.mark.native("threads")
    def test_threads_do_not_see_each_others_scopes(self, device):
        made = []

        def work():
            made.append(gw.tensor([1.0], device=device))

        with gw.tidy():
            thread = Thread(target=work)
            thread.start()
            thread.join()
        assert not made[0].disposed
        made[0].dispose()


class TestMemory:
    def test_counts_what_lives(self):
        before = gw.memory()
        x, y = gw.tensor([1.0] * 100), gw.tensor([[1, 2]], "int32")
        view = x.view((10, 10))
        during = gw.memory()
        assert during.num_tensors == before.num_tensors + 3
        assert during.num_buffers == before.num_buffers + 2
        assert during.num_bytes == before.num_bytes + 408
        assert during.num_bytes_in_gpu == before.num_bytes_in_gpu + 512 + 256
        assert during.num_bytes_allocated_in_gpu >= during.num_bytes_in_gpu
        assert during.peak_bytes_in_gpu >= during.num_bytes_in_gpu
        gw.dispose([x, y, view])
        assert gw.memory().num_bytes == before.num_bytes

    def test_a_freed_buffer_is_lent_again(self, device):
        device.memory.trim()
        x = gw.tensor([1.0] * 1000)
        buffer = x.storage.buffer
        x.dispose()
        pooled = gw.memory().num_bytes_allocated_in_gpu
        y = gw.tensor([2.0] * 1001)  # of the same size class
        assert y.storage.buffer is buffer
        assert gw.memory().num_bytes_allocated_in_gpu == pooled
        y.dispose()

    def test_the_pool_is_bounded(self, device, monkeypatch):
        device.memory.trim()
        monkeypatch.setattr(device.memory, "pool_limit", 8192)
        gw.dispose([gw.tensor([0.0] * 64 * (i + 1)) for i in range(20)])
        info = gw.memory()
        assert info.num_bytes_allocated_in_gpu - info.num_bytes_in_gpu <= 8192
        device.memory.trim()
        info = gw.memory()
        assert info.num_bytes_allocated_in_gpu == info.num_bytes_in_gpu
