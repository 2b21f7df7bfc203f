"""Log-probabilities of rows of a continuous batch, computed by the steps that they share."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from tests.models.batch_rows import (
    SAMPLERS,
    WITH_RULES,
    alone_in_detail,
    jobs_of,
    model_of,
    read,
    run,
)

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module", params=["float32", "float16", "q8"])
def lm(request, device):
    with model_of(request.param, device) as lm:
        yield lm


@pytest.mark.chromium_cases("lm")
def test_log_probabilities_are_those_alone(lm):
    """Of rows that join, leave and share steps, with different numbers of alternatives, or none."""
    jobs = []
    for index, (prompt, limit, given) in enumerate(jobs_of(12, 4, SAMPLERS + WITH_RULES[:1])):
        jobs.append((prompt, limit, given | {"top_logprobs": [0, 2, 20, None][index % 4]}))
    _, rows = asyncio.run(run(lm, jobs, 6))
    for row, (prompt, limit, given) in zip(rows, jobs, strict=True):
        top = given.pop("top_logprobs")
        if top is None:
            with pytest.raises(InvalidArgumentError, match="give submit top_logprobs"):
                row.logprobs()
            continue
        expected = alone_in_detail(lm, prompt, limit, top_logprobs=top, **given)
        found = row.logprobs()
        assert row.token_ids == expected.token_ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
        assert found.ranks == expected.ranks
        assert found.entropies == pytest.approx(expected.entropies, abs=1e-3)
        for ours, theirs in zip(found.top_logprobs, expected.top_logprobs, strict=True):
            assert len(ours) == top and ours == pytest.approx(theirs, abs=1e-3)
        assert row.logprobs(len(row.token_ids)).logprobs == []
        assert row.logprobs(1).logprobs == found.logprobs[1:]
        with pytest.raises(InvalidArgumentError, match="first"):
            row.logprobs(len(row.token_ids) + 1)


def test_log_probabilities_of_a_place_that_is_taken_again(lm):
    """The second row begins at the position where the first one ended."""
    prompts = [[1, 2, 3], [4, 5, 6]]

    async def values():
        async with gw.ContinuousBatch(lm, max_rows=1) as batch:
            rows = [
                batch.submit(each, max_new_tokens=1, stop_token_ids=None, top_logprobs=0)
                for each in prompts
            ]
            await asyncio.gather(*map(read, rows))
            return [row.logprobs().logprobs for row in rows]

    expected = [alone_in_detail(lm, each, 1, stop_token_ids=None).logprobs for each in prompts]
    for found, wanted in zip(asyncio.run(values()), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    assert abs(expected[0][0] - expected[1][0]) > 1e-3
