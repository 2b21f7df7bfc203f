"""Each form of a scope keeps the same rules: function, decorator, block, pair of calls,
synchronous and asynchronous."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, ScopeError
from tests.memory.tiny import new

pytestmark = pytest.mark.usefixtures("no_leak")


def as_function(body):
    return gw.tidy(body)


def as_named_function(body):
    return gw.tidy("named", body)


def as_decorator(body):
    @gw.tidy
    def run(_):
        return body()

    return run(0)


def as_named_decorator(body):
    return gw.tidy("named")(body)()


def as_context(body):
    with gw.tidy() as scope:
        return scope.escape(body())


def as_callbacks(body):
    gw.start_scope("callbacks")
    result = None
    try:
        result = body()
    finally:
        gw.end_scope(result)
    return result


def as_generator(body):
    @gw.tidy()
    def run():
        yield body()

    (result,) = run()
    return result


def as_generators_return(body):
    @gw.tidy()
    def run():
        yield
        return body()

    running = run()
    next(running)
    with pytest.raises(StopIteration) as finished:
        next(running)
    return finished.value.value


def as_coroutine(body):
    @gw.tidy
    async def run():
        await asyncio.sleep(0)
        result = body()
        await asyncio.sleep(0)
        return result

    return asyncio.run(run())


def as_awaited(body):
    async def run():
        await asyncio.sleep(0)
        return body()

    async def main():
        return await gw.tidy("awaited", run)

    return asyncio.run(main())


def as_async_context(body):
    async def run():
        async with gw.tidy("async") as scope:
            await asyncio.sleep(0)
            return scope.escape(body())

    return asyncio.run(run())


def as_async_generator(body):
    @gw.tidy("async generator")
    async def run():
        await asyncio.sleep(0)
        yield body()

    async def main():
        (result,) = [value async for value in run()]
        return result

    return asyncio.run(main())


FORMS = [value for name, value in list(globals().items()) if name.startswith("as_")]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def form(request):
    return request.param


def test_each_form_moves_its_result_up_one_scope(form, count):
    made = []

    def body():
        made.extend([new(), new()])
        made.append(made[0] + made[1])
        return {"sum": made[2], "n": 3}

    with gw.tidy("outer"):
        result = form(body)
        assert result["sum"] is made[2] and result["n"] == 3
        assert [tensor.disposed for tensor in made] == [True, True, False]
        assert gw.memory().num_scopes == 1
    assert made[2].disposed and count() == 0


def test_each_form_gives_its_result_to_the_caller_at_top_level(form, count):
    result = form(lambda: new() + 1)
    assert count() == 1 and result.tolist() == [2.0, 3.0, 4.0]
    result.dispose()


def test_each_form_frees_everything_when_the_body_raises(form, count):
    made = []

    def body():
        made.append(new())
        made.append(made[0] + 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        form(body)
    assert [tensor.disposed for tensor in made] == [True, True]
    assert gw.memory().num_scopes == 0 and count() == 0


def test_each_form_leaves_kept_tensors(form, count):
    kept = []
    form(lambda: kept.append(gw.keep(new())))
    assert count() == 1
    kept[0].dispose()


def test_each_form_names_itself_in_errors(form):
    made = []
    form(lambda: made.append(new()))
    with pytest.raises(DisposedTensorError, match=r"freed by the end of tidy scope '[\w<> ]+'"):
        made[0].tolist()


def test_a_body_that_would_run_after_its_scope_is_refused():
    """TF.js logs "Cannot return a Promise inside of tidy" and leaks."""

    async def later():
        return gw.tensor([1.0])

    def items():
        yield gw.tensor([1.0])

    for body in (lambda: later(), lambda: items()):
        with pytest.raises(ScopeError, match="runs after the scope"):
            gw.tidy(body)


def test_what_is_thrown_into_a_generator_reaches_its_body():
    seen = []

    @gw.tidy()
    def items():
        try:
            yield gw.tensor([1.0])
        except KeyboardInterrupt:
            seen.append("interrupt")
            raise

    running = items()
    next(running).dispose()
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt())
    assert seen == ["interrupt"]


def test_keys_of_a_mapping_move_up():
    result = gw.tidy(lambda: {gw.tensor([1.0]): 1})
    assert not next(iter(result)).disposed
    gw.dispose(result)
