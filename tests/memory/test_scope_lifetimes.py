"""Long-lived scopes: of generators, and of tasks."""

from __future__ import annotations

import asyncio
from threading import Thread

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ScopeError
from tests.memory.tiny import new

pytestmark = pytest.mark.usefixtures("no_leak")


def test_a_generators_scope_is_not_its_users(count):
    made = []

    @gw.tidy()
    def numbers():
        for value in (1.0, 2.0):
            made.append(new([value]))
            yield made[-1] * 10
            assert not made[0].disposed

    with gw.tidy():
        results = []
        for result in numbers():
            results.append(result)
            assert gw.memory().num_scopes == 1
            mine = new()  # of the user's scope
        assert all(tensor.disposed for tensor in made)
        assert [result.tolist() for result in results] == [[10.0], [20.0]]
        assert not mine.disposed
    assert count() == 0


def test_a_generator_may_yield_inside_a_further_scope(count):
    @gw.tidy()
    def numbers():
        with gw.tidy("inner"):
            x = new()
            yield 1
            assert not x.disposed and gw.memory().num_scopes == 2
            yield 2
        assert x.disposed
        yield 3

    assert list(numbers()) == [1, 2, 3]
    unfinished = numbers()
    assert next(unfinished) == 1 and gw.memory().num_scopes == 0
    unfinished.close()
    assert count() == 0


def test_an_asynchronous_generator_may_yield_inside_a_further_scope(count):
    @gw.tidy()
    async def numbers():
        async with gw.tidy("inner"):
            x = new()
            yield 1
            await x.data()
            yield 2

    async def main():
        return [value async for value in numbers()]

    assert asyncio.run(main()) == [1, 2] and count() == 0


def test_send_and_throw_reach_the_generator():
    @gw.tidy()
    def echo():
        try:
            value = yield 0
            yield value
        except KeyError as error:
            yield str(error)

    sent, thrown = echo(), echo()
    assert (next(sent), sent.send(5)) == (0, 5)
    assert (next(thrown), thrown.throw(KeyError("mine"))) == (0, "'mine'")


def test_send_and_throw_reach_the_asynchronous_generator():
    @gw.tidy()
    async def echo():
        try:
            value = yield 0
            yield value
        except KeyError as error:
            yield str(error)

    async def main():
        sent, thrown = echo(), echo()
        found = [await anext(sent), await sent.asend(5)]
        found += [await anext(thrown), await thrown.athrow(KeyError("mine"))]
        await sent.aclose()
        await thrown.aclose()
        return found

    assert asyncio.run(main()) == [0, 5, 0, "'mine'"]


@pytest.mark.parametrize("end", ["close", "drop", "throw"])
def test_a_generator_that_ends_early_frees_everything(count, end):
    made = []

    @gw.tidy()
    def endless():
        while True:
            made.append(new())
            yield

    running = endless()
    next(running)
    next(running)
    if end == "close":
        running.close()
    elif end == "throw":
        with pytest.raises(KeyError):
            running.throw(KeyError("mine"))
    del running
    assert [tensor.disposed for tensor in made] == [True, True] and count() == 0


def test_a_generator_that_raises_while_it_is_closed_frees_everything():
    made = []

    @gw.tidy()
    def stubborn():
        made.append(new())
        try:
            yield
        finally:
            raise KeyError("mine")

    running = stubborn()
    next(running)
    with pytest.raises(KeyError, match="mine"):
        running.close()
    assert made[0].disposed


def test_tasks_may_share_one_scope_object():
    shared = gw.tidy("shared")

    async def work(steps):
        async with shared:
            x = new()
            for _ in range(steps):
                await asyncio.sleep(0)
                assert not x.disposed
        return x.disposed

    async def main():
        return await asyncio.gather(*[work(steps) for steps in (3, 1, 2)])

    assert asyncio.run(main()) == [True] * 3


def test_a_task_that_outlives_the_scope_it_started_in(count):
    async def late(made):
        await asyncio.sleep(0)
        made.append(new())
        return gw.memory().num_scopes

    async def main():
        made = []
        with gw.tidy("outer"):
            with gw.tidy("inner"):
                task = asyncio.create_task(late(made))
            scopes = await task
            assert scopes == 1  # the inner one is closed
            assert not made[0].disposed
        return made[0].disposed

    assert asyncio.run(main()) and count() == 0


def test_a_task_cannot_end_the_scope_of_another():
    async def child():
        with pytest.raises(ScopeError, match="none is open in this task"):
            gw.end_scope()

    async def parent():
        gw.start_scope("parent")
        x = gw.tensor([1.0])
        await asyncio.create_task(child())
        assert not x.disposed
        gw.end_scope()
        assert x.disposed

    asyncio.run(parent())


def test_end_scope_does_not_end_a_tidy():
    with gw.tidy():
        x = gw.tensor([1.0])
        with pytest.raises(ScopeError):
            gw.end_scope()
        assert not x.disposed


def test_a_scope_forgotten_inside_a_tidy_is_named_and_closed():
    depth = gw.memory().num_scopes
    with pytest.raises(ScopeError, match="'callback' was still open"), gw.tidy("outer"):
        gw.start_scope("callback")
        x = gw.tensor([1.0])
    assert x.disposed
    assert gw.memory().num_scopes == depth


def test_tasks_do_not_see_each_others_scopes():
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
def test_threads_do_not_see_each_others_scopes(device):
    made = []

    def work():
        made.append(gw.tensor([1.0], device=device))

    with gw.tidy():
        thread = Thread(target=work)
        thread.start()
        thread.join()
    assert not made[0].disposed
    made[0].dispose()
