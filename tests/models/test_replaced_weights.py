"""Weights that are replaced while something was computed with the old ones: nothing mixes both."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import BusyError, DisposedTensorError
from gpt2_wgpu.models.search_step import SearchStep
from tests.memory import tiny

PROMPT = [(7 * i) % 101 for i in range(30)]
COUNT = 17


def model(seed):
    backbone = gw.GPT2Backbone(
        101, 2, 4, 32, 64, max_sequence_length=400, initializer_range=0.3, seed=seed
    )
    return gw.GPT2CausalLM(backbone)


def weights_of(seed):
    """Weights of another model, as lists."""
    with gw.tidy():
        other = model(seed)
        found = [weight.tolist() for weight in other.backbone.get_weights()]
        other.dispose()
    return found


@pytest.fixture
def lm(device, no_leak):
    with model(1) as lm:
        lm.compile("greedy")
        yield lm


def alone(lm):
    """The new ids of PROMPT."""
    output = lm.generate(tiny.packed([PROMPT], len(PROMPT) + COUNT), stop_token_ids=None)
    return tiny.ids_of(output)[0][len(PROMPT) :]


def test_a_session_computes_its_tokens_again(lm):
    with lm.session(PROMPT) as session:
        session.generate(1, stop_token_ids=None)
        session.rewind(1)
        lm.set_weights(weights_of(2))
        with session.fork() as fork:
            for each in (session, fork):
                each.generate(COUNT, stop_token_ids=None)
                assert each.token_ids[len(PROMPT) :] == alone(lm)


@pytest.mark.native("in a page other tasks run while a call blocks")
def test_a_batch_goes_on_with_the_new_weights(lm):
    async def run():
        async with gw.ContinuousBatch(lm, max_rows=2) as batch:

            def submitted(count=COUNT):
                return batch.submit(PROMPT, max_new_tokens=count, stop_token_ids=None)

            row = submitted()
            assert [i async for ids in row for i in ids] == before
            row = submitted(300)
            await anext(aiter(row))
            lm.set_weights(new)  # at once, before the row goes on
            with pytest.raises(DisposedTensorError, match="weights were replaced"):
                async for _ in row:
                    pass
            assert row.finish_reason == "error"
            return [i async for ids in submitted() for i in ids]

    before, new = alone(lm), weights_of(2)
    found = asyncio.run(run())
    assert found == alone(lm) != before


def test_a_generation_ends_with_an_error(lm):
    new = weights_of(2)
    generation = lm.start_generation([PROMPT], [300])
    asyncio.run(generation.advance())
    lm.set_weights(new)
    with pytest.raises(DisposedTensorError, match="weights were replaced"):
        asyncio.run(generation.advance())
    generation.close()


@pytest.mark.parametrize("sampler", [samplers.BeamSampler(2), samplers.ContrastiveSampler(2, 0.5)])
def test_a_search_ends_with_an_error(lm, monkeypatch, sampler):
    new, run, steps = weights_of(2), SearchStep.run, []

    async def replaced(self, *args):
        steps.append(args)
        if len(steps) == 3:
            await lm.set_weights_async(new)
        return await run(self, *args)

    monkeypatch.setattr(SearchStep, "run", replaced)
    with pytest.raises(DisposedTensorError, match="weights were replaced"):
        lm.generate(tiny.packed([PROMPT], 60), stop_token_ids=None, sampler=sampler)
    assert len(steps) == 3


def test_two_changes_at_once(lm):
    first, second = weights_of(2), weights_of(3)

    async def both():
        return await asyncio.gather(
            lm.set_weights_async(first), lm.set_weights_async(second), return_exceptions=True
        )

    done, error = asyncio.run(both())
    assert done is None and isinstance(error, BusyError)
    with gw.tidy():
        assert lm.get_weights()[0].tolist() == first[0]
