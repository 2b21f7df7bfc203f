"""Scopes: the rules that each form keeps, how scopes nest, what is kept and what is disposed.

The cases of TF.js's globals_test and engine_test are among them. Where TF.js has a bug (views
counted twice, asynchronous bodies that leak), the test is for the right behaviour.
"""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, InvalidArgumentError, ScopeError
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


# --- one form -------------------------------------------------------------------------------------


def test_a_decorator_keeps_name_arguments_and_docstring():
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
    made.clear()
    step(2, result=0).dispose()


@pytest.mark.parametrize("value", [1, True, "hello", None, 2.5, b"x", (), print, object(), [1, 2]])
def test_other_values_come_back_unchanged(value, count):
    def body():
        new()
        return value

    assert gw.tidy(body) is value
    assert count() == 0


@pytest.mark.parametrize(
    "arguments", [(None,), (1,), ("a", "b"), (len, "a"), ("a", None), ("a", len, 1), (1, len)]
)
def test_argument_errors(arguments, count):
    with pytest.raises(InvalidArgumentError, match="a name, a function, or both"):
        gw.tidy(*arguments)
    assert gw.memory().num_scopes == 0


def test_a_scope_closed_out_of_order_is_refused():
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


# --- scopes within scopes -------------------------------------------------------------------------


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


def test_returning_a_tensor_of_outside_does_not_move_it():
    with gw.tidy():
        outer = new()
        with gw.tidy():
            middle = gw.tidy(lambda: gw.tidy(lambda: outer))
        assert middle is outer and not outer.disposed
    assert outer.disposed


def test_a_tensor_made_before_is_left_alone():
    x = new()
    with gw.tidy() as scope:
        scope.escape(x)
    assert not x.disposed
    x.dispose()


@pytest.mark.parametrize("value", [lambda x: x, lambda x: [x], lambda x: {"x": x}])
def test_what_is_disposed_cannot_be_kept_or_moved(value):
    with gw.tidy() as scope:
        x = new()
        x.dispose()
        for move in (gw.keep, scope.escape, lambda given: gw.tidy(lambda: given)):
            with pytest.raises(DisposedTensorError, match="freed by dispose"):
                move(value(x))


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


# --- keep and dispose -----------------------------------------------------------------------------


def test_a_kept_tensor_outlives_every_scope():
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


def test_several_disposes_count_once(count):
    a, b = new(), new()
    for expected in (1, 1):
        a.dispose()
        assert count() == expected
    gw.dispose([a, a, None, 3, "x", {"again": b, "f": print, "list": [b]}])
    assert count() == 0
