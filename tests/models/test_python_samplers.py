"""KerasHub's sampler call and extension points, with the loops of its own sampler tests."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.samplers.drawing import draw_token
from gpt2_wgpu.samplers.sampler import check_usable, runs_in_python, runs_its_own_loop

pytestmark = [pytest.mark.usefixtures("device"), pytest.mark.native("NumPy")]

LETTERS = string.ascii_lowercase
ALL = ["greedy", "random", "top_k", "top_p"]


def ids(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


def text(row: Any) -> str:
    return "".join(LETTERS[token] for token in row)


def forced(prompt: Any, cache: Any, index: int) -> tuple[Any, None, Any]:
    """Logits that leave no choice but ``cache[:, index]``."""
    return np.eye(len(LETTERS))[np.asarray(cache)[:, index]] * 1e9, None, cache


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_follows_a_certain_next(name: str) -> None:
    cache = [ids("sequentially")]
    output = samplers.get(name)(forced, np.zeros((1, 12), np.int32), cache)
    assert text(output[0]) == "sequentially"


def test_masked_positions_keep_the_prompt_and_stops_end_the_loop() -> None:
    cache = [ids("sequentially"), ids("nextnextnext")]
    prompt = [ids("zzzzzzzzzzzz"), ids("zzzqzzzzzzzz")]
    mask = [[False] * 12, [place == 3 for place in range(12)]]
    output = samplers.Greedy()(forced, prompt, cache, index=1, mask=mask, stop_token_ids=ids("tq"))
    # The q of the second prompt is not a chosen token, so the second t ends that row and the loop.
    assert [text(row) for row in output] == ["zequentizzzz", "zexqnextzzzz"]


def test_next_may_return_tensors_and_be_a_coroutine_function() -> None:
    async def following(prompt: Any, cache: gw.Tensor, index: int) -> tuple[gw.Tensor, None, Any]:
        return gw.tensor(np.eye(26, dtype=np.float32)[[index]]), None, cache

    assert text(samplers.Greedy()(following, np.zeros((1, 5), np.int32))[0]) == "abcde"


def test_random_samplers_keep_the_top_and_repeat_with_their_seed() -> None:
    probabilities = gw.tensor([[0.1, 0.2, 0.3, 0.4]] * 100)
    drawn = {}
    for sampler in (
        samplers.TopK(2, seed=1),
        samplers.TopP(0.5, seed=1),
        samplers.Random(seed=1),
        samplers.MinP(0.6, seed=1),
        samplers.Typical(0.4, seed=1),
    ):
        first, second = (sampler.get_next_token(probabilities) for _ in range(2))
        assert first != second
        drawn[type(sampler).__name__] = set(first)
    assert drawn == {
        "TopKSampler": {2, 3},
        "TopPSampler": {2, 3},
        "RandomSampler": {0, 1, 2, 3},
        "MinPSampler": {2, 3},
        "TypicalSampler": {1, 2},
    }
    repeated = samplers.TopK(2, seed=1).get_next_token(probabilities)
    assert repeated == samplers.TopK(2, seed=1).get_next_token(probabilities)


def test_temperature_scales_the_logits_and_0_is_greedy() -> None:
    logits = [[1.0, 3.0, 2.0]]
    for temperature in (1.0, 0.5):
        found = samplers.Random(temperature=temperature).compute_probabilities(logits).numpy()
        power = np.exp(np.array(logits) / temperature)
        np.testing.assert_allclose(found, power / power.sum(), rtol=1e-5)
    cold = samplers.Random(temperature=0.0)
    assert cold.get_next_token(cold.compute_probabilities(logits)) == [1]


def test_tokens_that_are_all_improbable_can_be_drawn() -> None:
    options = samplers.Random(seed=0).next_options()
    assert draw_token([1e-12, 2e-12], options, 0, 0) == 1


class Last(samplers.Sampler):
    """Always the last token."""

    def get_next_token(self, probabilities: gw.Tensor) -> Any:
        return np.full(probabilities.shape[0], probabilities.shape[1] - 1)


class Loop(samplers.Sampler):
    def __call__(self, next: Any, prompt: Any, *_: Any, **__: Any) -> Any:
        return prompt


class Neither(samplers.Sampler):
    pass


def test_what_a_subclass_replaces_is_found() -> None:
    assert text(Last()(forced, [[0, 0]], [[1, 1]])[0]) == "zz"
    replaced = samplers.TopK()
    replaced.get_next_token = lambda probabilities: [7]  # type: ignore[method-assign]
    assert [runs_in_python(each) for each in (Last(), replaced, samplers.TopK(), Loop())] == [
        True, True, False, False,
    ]  # fmt: skip
    assert runs_its_own_loop(Loop())
    assert not runs_its_own_loop(Last())
    with pytest.raises(InvalidArgumentError, match=r"Neither has no choice .* get_next_token\(pro"):
        check_usable(Neither())
    assert check_usable(Loop())


@pytest.mark.parametrize(
    ("result", "error", "match"),
    [
        ([1], ShapeError, "1 tokens for 2 rows"),
        ([0.5, 1], InvalidArgumentError, "get_next_token"),
        (None, InvalidArgumentError, "one token id a row, not None"),
        ([[1, 2], [3, 4]], ShapeError, "one token id a row"),
    ],
    ids=["too few", "a float", "nothing", "two a row"],
)
def test_wrong_results_of_get_next_token(result: Any, error: type[Exception], match: str) -> None:
    sampler = samplers.Greedy()
    sampler.get_next_token = lambda probabilities: result  # type: ignore[method-assign]
    with pytest.raises(error, match=match):
        sampler(forced, [[0, 0], [0, 0]], [[1, 1], [1, 1]])


@pytest.mark.parametrize(
    ("result", "error", "match"),
    [
        (3, InvalidArgumentError, r"next must return \(logits, hidden states, cache\), not 3"),
        (([[1.0]], None), InvalidArgumentError, "next must return"),
        ((3, None, None), ShapeError, r"logits of shape \[2, V\], not \[\]"),
        (([1.0, 2.0], None, None), ShapeError, r"not \[2\]"),
        (([[[1.0]], [[2.0]]], None, None), ShapeError, r"not \[2, 1, 1\]"),
        ((np.zeros((1, 4)), None, None), ShapeError, r"not \[1, 4\]"),
    ],
    ids=["a number", "a pair", "scalar", "one axis", "three axes", "one row"],
)
def test_wrong_results_of_next(result: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        samplers.Greedy()(lambda *_: result, [[0, 0], [0, 0]])
    with pytest.raises(InvalidArgumentError, match="next must be a function, not 3"):
        samplers.Greedy()(3, [[0, 0]])


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_a_prompt_of_whole_floats_is_accepted(name: str) -> None:
    """Keras' ops.full makes floats of integers."""

    def following(prompt, cache, index):  # the token after that before index
        logits = np.full((len(prompt), 9), -50.0, np.float32)
        for row, ids in enumerate(prompt):
            logits[row, (int(ids[index - 1]) + 1) % 9] = 50.0
        return logits, None, cache

    found = samplers.get(name)(following, np.full((1, 5), 3.0), index=2)
    assert np.asarray(found).tolist() == [[3, 3, 4, 5, 6]]
    with pytest.raises(InvalidArgumentError, match="integers"):
        samplers.get(name)(following, np.full((1, 5), 3.5), index=2)
