"""Samplers in Python and logits processors, as the model's generation runs them."""

from __future__ import annotations

import asyncio
import copy
import math

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import (
    InvalidArgumentError,
    NumericalError,
    ShapeError,
)
from gpt2_wgpu.models import decode_step
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

LENGTH = 12
PROMPTS = ["abc", "q", "z"]
X = ord("x") - 33  # an id of tiny's vocabulary


@pytest.fixture(scope="module")
def model(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.fixture
def lm(model):
    yield model
    model.compile()


@pytest.fixture
def recordings(monkeypatch):
    """What became of each step that was to be recorded: True, or False for an eager one."""
    found = []
    recorded = decode_step.DecodeStep.recorded

    async def noted(step):
        recording = await recorded(step)
        found.append(recording is not None)
        return recording

    monkeypatch.setattr(decode_step.DecodeStep, "recorded", noted)
    return found


class MostLikely(samplers.Sampler):
    """KerasHub's example of a custom sampler, but for the largest probability."""

    def get_next_token(self, probabilities):
        rows = probabilities.tolist()
        assert all(math.isclose(sum(row), 1, rel_tol=1e-3) for row in rows)
        return [row.index(max(row)) for row in rows]


class MostLikelyOnGPU(samplers.Sampler):
    async def get_next_token(self, probabilities):
        return gw.ops.argmax(probabilities)


class MostLikelyLoop(samplers.Sampler):
    """A loop of its own, in KerasHub's form."""

    def __call__(
        self, next, prompt, cache=None, index=0, mask=None, stop_token_ids=None,
        hidden_states=None, model=None,
    ):  # fmt: skip
        assert hidden_states.shape[:2] == (len(prompt), len(prompt[0]))
        assert isinstance(model, gw.GPT2CausalLM)
        rows = [list(map(int, row)) for row in prompt]
        for place in range(index, len(rows[0])):
            with gw.tidy():
                logits, _, cache = next(rows, cache, place)
                for which, row in enumerate(logits.tolist()):
                    if not mask[which][place]:
                        rows[which][place] = row.index(max(row))
        return rows


ALIKE = [MostLikely, MostLikelyOnGPU, MostLikelyLoop]


@pytest.mark.parametrize("kind", ALIKE, ids=lambda kind: kind.__name__)
def test_a_greedy_sampler_in_python_gives_the_greedy_texts(lm, kind):
    lm.compile("greedy")
    expected = lm.generate(PROMPTS, max_length=LENGTH)
    lm.compile(kind())
    assert lm.generate(PROMPTS, max_length=LENGTH) == expected
    assert asyncio.run(lm.generate_async(PROMPTS, LENGTH)) == expected
    packed = lm.preprocessor.generate_preprocess(PROMPTS, sequence_length=LENGTH)
    assert lm.preprocessor.generate_postprocess(lm.generate(packed)) == expected
    streamed = "".join(lm.stream(PROMPTS[0], max_new_tokens=LENGTH - 4))
    assert PROMPTS[0] + streamed == expected[0]


@pytest.mark.parametrize("kind", ALIKE[:2], ids=lambda kind: kind.__name__)
def test_a_sampler_in_python_obeys_penalties_stops_and_limits(lm, kind):
    penalties = {"repetition_penalty": 1.5, "frequency_penalty": 0.25}
    lm.compile(samplers.Greedy(**penalties))
    expected = lm.generate(PROMPTS, max_length=LENGTH)
    lm.compile(kind(**penalties))
    assert lm.generate(PROMPTS, max_length=LENGTH) == expected
    stop = lm.preprocessor.tokenizer.encode(expected[0])[5]
    stopped = lm.generate(PROMPTS[0], max_length=LENGTH, stop_token_ids=[stop])
    assert len(stopped) < LENGTH
    assert expected[0].startswith(stopped)


def test_a_sampler_in_python_runs_without_a_recording(lm, recordings):
    lm.compile(MostLikely())
    lm.generate("a", max_length=LENGTH)
    assert recordings == [False]


def test_a_subclass_may_change_the_probabilities_alone(lm):
    class Uniform(samplers.TopKSampler):
        def compute_probabilities(self, logits):
            rows, width = logits.shape
            return gw.tensor([[1 / width] * width] * rows)

    lm.compile(Uniform(1))
    assert lm.generate("a", max_length=5, stop_token_ids=None)[1:] == "!!!"  # id 0, the first


def only_x(token_ids, logits):
    rows = logits.shape[0]
    update = gw.tensor([[1e4]] * rows)
    return gw.ops.slice_update(logits, (0, X), update)


def only_x_by_exclusion(token_ids, logits):
    rows = logits.tolist()
    return [[0.0 if i == X else -math.inf for i in range(len(row))] for row in rows]


async def only_x_later(token_ids, logits):
    await asyncio.sleep(0)
    return only_x(token_ids, logits)


def only_x_with_ids(token_ids, logits):
    assert token_ids[0][1:4] == [ord(letter) - 33 for letter in "abc"][: len(token_ids[0]) - 1]
    return only_x(token_ids, logits)


@pytest.mark.parametrize(
    ("processor", "recorded"),
    [
        (only_x, True),
        (only_x_by_exclusion, False),
        (only_x_with_ids, False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("sampler", ["greedy", "top_k", MostLikely()], ids=str)
def test_processors_change_the_logits(lm, recordings, processor, recorded, sampler):
    lm.compile(sampler, logits_processors=[processor])
    assert lm.generate("abc", max_length=LENGTH) == "abc" + "x" * (LENGTH - 4)
    assert "".join(lm.stream("abc", max_new_tokens=3)) == "xxx"
    assert set(recordings) == {recorded and isinstance(sampler, str)}


def ids_in_a_try(token_ids, logits):
    try:
        assert len(token_ids[0]) > 1
    except Exception:
        return logits
    return only_x(token_ids, logits)


def values_in_a_try(token_ids, logits):
    try:
        logits.tolist()
    except Exception:
        return logits
    return only_x(token_ids, logits)


def ids_by_comparison(token_ids, logits):
    return logits if token_ids == [] else only_x(token_ids, logits)


@pytest.mark.parametrize("processor", [ids_in_a_try, values_in_a_try, ids_by_comparison])
def test_a_processor_that_catches_the_error_of_reading_runs_eagerly(lm, recordings, processor):
    lm.compile("greedy", logits_processors=[processor])
    assert lm.generate("abc", max_length=8) == "abcxxxx"
    assert recordings == [False]


def test_processors_may_be_coroutine_functions(lm):
    lm.compile("greedy", logits_processors=[only_x_later])
    assert asyncio.run(lm.generate_async("abc", 6)) == "abcxx"


def test_processors_run_in_their_order_and_see_every_token(lm):
    seen = []

    def note(token_ids, logits):
        seen.append([len(row) for row in token_ids])
        return logits

    lm.compile("greedy", logits_processors=[only_x, note])
    lm.generate(["abc", "q"], max_length=6, stop_token_ids=None)
    assert seen == [[4, 2], [5, 3], [6, 4], [6, 5]]
    lm.compile("greedy")
    before = len(seen)
    lm.generate("abc", max_length=6)
    assert len(seen) == before


@pytest.mark.parametrize(
    ("sampler", "processors", "match"),
    [
        (samplers.Sampler(), (), "Sampler has no choice of its own: define get_next_token"),
        ("greedy", only_x, "must be a list of functions"),
        ("greedy", [3], r"called as processor\(token_ids, logits\): 3 cannot be"),
        ("greedy", [lambda logits: logits], r"called as processor\(token_ids, logits\)"),
        (MostLikelyLoop(), [only_x], "MostLikelyLoop replaces the sampling loop"),
        (MostLikelyLoop(presence_penalty=1), (), "loop, which applies penalties"),
    ],
)
def test_compile_refuses_what_cannot_work(lm, sampler, processors, match):
    before = lm.sampler
    with pytest.raises(InvalidArgumentError, match=match):
        lm.compile(sampler, logits_processors=processors)
    assert lm.sampler is before


def not_finite(token_ids, logits):
    return gw.ops.mul(logits, math.nan)


def test_a_loop_that_is_assigned_refuses_processors_too(lm):
    lm.compile("greedy", logits_processors=[only_x])
    lm.sampler = MostLikelyLoop()
    with pytest.raises(InvalidArgumentError, match="MostLikelyLoop replaces the sampling loop"):
        lm.generate("abc", 8)


@pytest.mark.parametrize(
    ("processor", "error", "match"),
    [
        (lambda ids, logits: gw.ops.reshape(logits, (-1,)), ShapeError, "of shape"),
        (lambda ids, logits: None, InvalidArgumentError, "must return logits, not None"),
        (lambda ids, logits: "x", InvalidArgumentError, "not float32"),
        (lambda ids, logits: [[1.0]], ShapeError, r"of shape \(1, \d+\), not \(1, 1\)"),
        (not_finite, NumericalError, "not finite"),
        (
            lambda ids, logits: [[-math.inf] * logits.shape[1]],
            NumericalError,
            "every token of row 0 is excluded at position 3",
        ),
    ],
    ids=["flat", "none", "text", "narrow", "nan", "excluded"],
)
@pytest.mark.parametrize("sampler", ["greedy", MostLikelyOnGPU()], ids=str)
def test_wrong_results_of_processors(lm, sampler, processor, error, match):
    lm.compile(sampler, logits_processors=[processor])
    with pytest.raises(error, match=match):
        lm.generate("abc", max_length=6)


def test_errors_of_user_code_pass_and_leave_nothing(lm):
    class Broken(samplers.Sampler):
        def get_next_token(self, probabilities):
            raise ZeroDivisionError("mine")

    lm.compile(Broken())
    with pytest.raises(ZeroDivisionError, match="mine"):
        lm.generate("abc", max_length=6)
    lm.compile("greedy", logits_processors=[lambda ids, logits: 1 / 0])
    with pytest.raises(ZeroDivisionError):
        lm.generate("abc", max_length=6)


def test_a_loop_of_its_own_takes_a_coroutine_function_as_call_with_cache(lm, monkeypatch):
    class Awaiting(samplers.GreedySampler):
        def __call__(self, *arguments, **named):
            return super().call_async(*arguments, **named)

    lm.compile("greedy")
    expected = lm.generate("abc", max_length=8)
    call = lm.call_with_cache

    async def call_later(*arguments):
        await asyncio.sleep(0)
        return call(*arguments)

    lm.compile(Awaiting())
    monkeypatch.setattr(lm, "call_with_cache", call_later, raising=False)
    assert asyncio.run(lm.generate_async("abc", 8)) == expected
    monkeypatch.undo()


def test_logits_that_are_not_finite_end_a_choice_in_python(lm):
    class Broken(samplers.TopKSampler):
        def compute_probabilities(self, logits):
            return gw.ops.mul(logits, math.nan)

    lm.compile(Broken(3))
    with pytest.raises(NumericalError, match="probabilities of row 0 are not finite"):
        lm.generate("abc", max_length=6)


class MinP(samplers.TopKSampler):
    """A sampler with a constructor of its own."""

    def __init__(self, p):
        super().__init__(k=3, seed=1)
        self.p = p


def test_a_sampler_with_a_constructor_of_its_own_is_copied():
    sampler = MinP(0.5)
    for copied in (copy.copy(sampler), copy.deepcopy(sampler)):
        assert (copied.p, copied.k, copied.seed) == (0.5, 3, 1)
        assert copied.next_options() == MinP(0.5).next_options()


def test_a_loop_of_its_own_sees_the_tokens_that_can_be_chosen(device):
    backbone = gw.GPT2Backbone(272, 1, 2, 8, 16, max_sequence_length=16)
    lm = gw.GPT2CausalLM(backbone, gw.GPT2CausalLMPreprocessor(tiny.tokenizer(), 16))
    widths = []

    class Noted(samplers.GreedySampler):
        def __call__(self, next, prompt, *arguments, **named):
            def noted(*given):
                found = next(*given)
                widths.append(found[0].shape[1])
                return found

            return super().__call__(noted, prompt, *arguments, **named)

    lm.compile(Noted())
    lm.generate("abc", max_length=6, stop_token_ids=None)
    assert set(widths) == {lm.preprocessor.tokenizer.vocabulary_size()}
    lm.dispose()
