"""What a caller replaces, keeps or stores in the pipeline stays the caller's."""

from __future__ import annotations

import copy

import pytest

import gpt2_wgpu as gw
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

LENGTH = 12
PROMPT = "abc"


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.mark.parametrize("name", ["generate_step", "build_cache"])
def test_an_async_step_may_call_the_blocking_one_it_replaces(lm, name):
    calls = []

    def step_async(self, *args, **kwargs):
        async def run():
            calls.append(name)
            return getattr(super(type(model), self), name)(*args, **kwargs)

        return run()

    model = copy.copy(lm)
    model.__class__ = type("Asynchronous", (gw.GPT2CausalLM,), {f"{name}_async": step_async})
    expected = lm.generate(PROMPT, LENGTH, None)
    assert model.generate(PROMPT, LENGTH, None) == expected
    assert calls == [name]
    inputs = tiny.packed([[1, 2]], LENGTH)
    with gw.tidy():
        getattr(model, name)(inputs if name == "generate_step" else inputs["token_ids"])
    assert calls == [name] * 2


def test_a_copy_keeps_the_users_function(lm):
    model = copy.copy(lm)
    model.generate_function = lambda inputs, stop_token_ids=None: inputs
    for copied in (copy.copy(model), copy.deepcopy(model)):
        assert copied.generate(PROMPT, LENGTH, None) == PROMPT
        if copied.backbone is not lm.backbone:
            copied.dispose()


def test_a_cache_that_is_kept_serves_again(lm):
    model, built = copy.copy(lm), {}

    def memoised(token_ids):
        key = tuple(map(tuple, token_ids))
        if key not in built:
            built[key] = gw.keep(lm.build_cache(token_ids))
        return built[key]

    model.build_cache = memoised
    texts = [model.generate(PROMPT, LENGTH, None) for _ in range(3)]
    assert texts == [lm.generate(PROMPT, LENGTH, None)] * 3
    assert len(built) == 1
    gw.dispose(built)


def test_a_method_of_the_backbone_replaced_after_a_generation_runs(lm):
    model = copy.copy(lm)
    model.backbone = copy.copy(lm.backbone)
    expected = model.generate(PROMPT, LENGTH, None)
    calls = []
    original = model.backbone.head

    def head(x, state):
        calls.append(x.shape)
        return original(x, state)

    model.backbone.head = head
    for count in (1, 2):  # recorded once for each generation
        assert model.generate(PROMPT, LENGTH, None) == expected
        assert len(calls) == count
    model.kept_runs.close()
    gw.trim()
