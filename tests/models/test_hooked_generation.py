"""Hooks while text is generated."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from tests.memory import tiny
from tests.models import hooked_model
from tests.models.hooked_model import IDS, LAST, close, logits_of

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module")
def lm(device):
    lm = hooked_model.model()
    yield lm
    lm.dispose()


@pytest.fixture
def steer(lm):
    vector, hook = hooked_model.steering(lm.backbone.hidden_dim)
    yield hook
    vector.dispose()


def steered_text(lm, hooks, prompt, new):
    """Greedy ids by whole forward passes."""
    ids = list(prompt)
    for _ in range(new):
        with gw.tidy():
            logits = lm.run_with_hooks([ids], hooks)
            ids.append(gw.ops.argmax(logits[0, -1]).item())
    return ids


def test_a_hook_of_scores_in_steps_gives_positions_to_come_no_weight(lm):
    zeros = [("*.hook_attn_scores", lambda tensor, _: gw.ops.mul(tensor, 0.0))]
    expected = steered_text(lm, zeros, IDS[0], 11)
    with lm.hooks(zeros):
        for length in (8, 16):
            assert tiny.text_of(lm, [IDS[0]], length) == [expected[:length]]


def test_numbers_that_are_not_finite_name_the_hook(lm):
    with lm.hooks([(LAST, lambda tensor, name: gw.ops.mul(tensor, float("nan")))]):
        for call in (
            lambda: lm.generate("The", max_new_tokens=2),
            lambda: lm.generate("The", max_new_tokens=2, sampler=gw.samplers.BeamSampler(2)),
            lambda: lm.logprobs("The king"),
        ):
            with pytest.raises(NumericalError, match=f"a hook returned them \\({LAST}\\)"):
                call()


@pytest.mark.parametrize("reads", [False, True], ids=["recorded", "eager"])
def test_generation_is_that_of_forward_passes(lm, steer, reads):
    """A hook of operations is called once for all steps, one that reads values for each."""
    calls = []

    def hook(tensor, name):
        calls.append(tensor.shape)
        if reads:
            tensor.tolist()
        return steer(tensor, name)

    plain, expected = tiny.text_of(lm, [IDS[0]], 16), steered_text(lm, [(LAST, steer)], IDS[0], 11)
    calls.clear()
    with lm.hooks([(LAST, hook)]):
        assert tiny.text_of(lm, [IDS[0]], 16) == [expected]
    assert calls[:2] == [(1, 4, 16), (1, 1, 16)]  # all of the prompt but its last token, a step
    assert len(calls) == (12 + 1 if reads else 2)
    assert plain != [expected]
    assert tiny.text_of(lm, [IDS[0]], 16) == plain  # the step with the hook is not kept


def test_each_row_of_a_batch_is_steered_as_alone(lm, steer):
    prompts = [[5, 9, 200, 31, 7], [1, 2]]
    with lm.hooks([("blocks.0.attn.hook_pattern", lambda *_: None), (LAST, steer)]):
        both = tiny.text_of(lm, prompts, 14)
        alone = [tiny.text_of(lm, [prompt], 14)[0] for prompt in prompts]
    assert both == alone


@pytest.mark.parametrize(
    "options",
    [{}, {"sampler": gw.samplers.BeamSampler(2)}, {"sampler": gw.samplers.ContrastiveSampler()}],
    ids=["greedy", "beam", "contrastive"],
)
@pytest.mark.parametrize("reads", [False, True], ids=["recorded", "eager"])
def test_streams_and_searches_take_hooks(lm, steer, options, reads):
    def hook(tensor, name):
        if reads:
            tensor.tolist()
        return steer(tensor, name)

    plain = lm.generate("ab", strip_prompt=True, **tiny.ENDLESS, **options)
    with lm.hooks([(LAST, hook)]):
        stream = lm.stream("ab", **tiny.ENDLESS, **options)
        text = lm.generate("ab", strip_prompt=True, **tiny.ENDLESS, **options)
    assert "".join(stream) == text != plain  # a stream has the hooks of its call


@pytest.mark.parametrize("reads", [False, True], ids=["recorded", "eager"])
def test_prompt_lookup_takes_hooks(lm, steer, reads):
    """Steps of several tokens have the text of single ones."""

    def hook(tensor, name):
        if reads:
            tensor.tolist()
        return steer(tensor, name)

    points = ["blocks.0.attn.hook_v", "ln_final.hook_normalized"]
    hooks = [(LAST, hook), (points, lambda tensor, name: gw.ops.mul(tensor, 1.5))]
    with lm.hooks(hooks):
        expected = lm.generate("abababab", **tiny.ENDLESS)
        lm.compile("greedy", prompt_lookup_num_tokens=3)
        found = lm.generate("abababab", **tiny.ENDLESS)
    lm.compile("greedy")
    assert found == expected != lm.generate("abababab", **tiny.ENDLESS)


def test_details_of_a_stream_have_the_hooks_of_its_call(lm, steer):
    with lm.hooks([(LAST, steer)]):
        stream = lm.stream("ab", **tiny.ENDLESS)
        expected = lm.generate("ab", return_details=True, **tiny.ENDLESS).logprobs
    "".join(stream)
    assert stream.details().logprobs == pytest.approx(expected, abs=1e-5)


def test_sessions_and_scores_take_hooks(lm, steer):
    with lm.hooks([(LAST, steer)]):
        expected = lm.generate("abcd", **tiny.ENDLESS)
        with lm.session("ab") as session:
            session.append("cd")
            session.generate(max_new_tokens=24, stop_token_ids=None)
            assert session.text == expected
        steered = lm.logprobs([IDS[0]])
    assert not close(steered[0], lm.logprobs([IDS[0]])[0], 1e-3)


@pytest.mark.native("threads")
def test_hooks_apply_to_their_thread(lm, steer):
    plain = logits_of(lm)
    with lm.hooks([(LAST, steer)]), ThreadPoolExecutor(1) as pool:
        assert pool.submit(logits_of, lm).result(tiny.TIMEOUT_S) == plain
        assert logits_of(lm) != plain


def test_async_forms(lm, steer):
    async def run():
        async with lm.hooks([(LAST, steer)]):
            with gw.tidy():
                logits, cache = await lm.run_with_cache_async(IDS, LAST)
                assert len(await cache.data()) == 1
                again = await lm.run_with_hooks_async(IDS, [])
                return [
                    (await each.data()).cast("B").cast("f").tolist() for each in (logits, again)
                ]

    first, again = asyncio.run(run())
    assert first == again == logits_of(lm, [(LAST, steer)]) != logits_of(lm)


def test_a_continuous_batch_rejects_hooks(lm, steer):
    async def run():
        async with gw.ContinuousBatch(lm) as batch:
            with lm.hooks([(LAST, steer)]):
                batch.submit([1, 2])

    with pytest.raises(InvalidArgumentError, match="a ContinuousBatch takes no hooks"):
        asyncio.run(run())
