"""Arguments of one call of ``generate`` and ``stream``, beside those that KerasHub has."""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = ["abc", "a"]


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


@pytest.fixture(scope="module")
def whole(lm):
    """Text and ids of each prompt alone: 20 new tokens, without a start token."""
    texts, ids = [], []
    for prompt in PROMPTS:
        stream = lm.stream(prompt, max_new_tokens=20, stop_token_ids=None)
        texts.append("".join(stream))
        ids.append(stream.stats.token_ids)
    return texts, ids


def generate(lm, inputs, **arguments):
    return lm.generate(inputs, stop_token_ids=None, strip_prompt=True, **arguments)


def test_max_new_tokens_count_from_the_end_of_each_prompt(lm, whole):
    """Rows of different lengths get as many tokens, and as alone."""
    assert generate(lm, PROMPTS, max_new_tokens=20) == whole[0]
    assert lm.generate("abc", max_new_tokens=20, stop_token_ids=None) == "abc" + whole[0][0]
    # with max_length (start token included) the nearer limit ends a row
    cut = generate(lm, PROMPTS, max_length=10, max_new_tokens=7)
    assert [len(text.encode()) for text in cut] == [
        len("".join(lm.stream("abc", max_new_tokens=6, stop_token_ids=None)).encode()),
        len("".join(lm.stream("a", max_new_tokens=7, stop_token_ids=None)).encode()),
    ]


def test_max_new_tokens_of_packed_ids(lm, whole):
    start = lm.preprocessor.tokenizer.start_token_id
    rows = [[start, *map(ord, "abc")], [start, *map(ord, "a")]]
    rows = [[row[0], *(letter - 33 for letter in row[1:])] for row in rows]
    inputs = tiny.packed(rows, 40)
    output = lm.generate(inputs, stop_token_ids=None, max_new_tokens=5)
    for row, new, ids, mask in zip(
        rows, whole[1], output["token_ids"], output["padding_mask"], strict=True
    ):
        size = len(row) + 5
        assert list(ids)[:size] == row + new[:5]
        assert list(mask) == [True] * size + [False] * (40 - size)


@pytest.mark.parametrize("of", ["the decoding loop", "a replaced generate_step"])
def test_stop_texts_end_each_row(lm, whole, of):
    """Before the stop text, in new text only; the other rows go on."""
    model = lm
    if of != "the decoding loop":
        model = copy.copy(lm)
        model.generate_step = lambda *arguments: lm.generate_step(*arguments)
    text = whole[0][0]
    stop = text[6:8]
    assert stop not in whole[0][1]
    found = generate(model, PROMPTS, max_new_tokens=20, stop_texts=[stop])
    assert found == [text[: text.index(stop)], whole[0][1]]
    prompt = model.generate(stop, max_new_tokens=20, stop_token_ids=None, stop_texts=[stop])
    assert prompt.startswith(stop)


def test_stop_texts_save_the_steps_behind_them(lm, whole, monkeypatch):
    from gpt2_wgpu.models.decode_run import DecodeRun

    steps = []
    submit = DecodeRun.submit

    def counted(self, count, check=False):
        steps.append(count)
        return submit(self, count, check)

    monkeypatch.setattr(DecodeRun, "submit", counted)
    generate(lm, "abc", max_new_tokens=40)
    all_of_them = sum(steps)
    steps.clear()
    generate(lm, "abc", max_new_tokens=40, stop_texts=[whole[0][0][0]])
    assert sum(steps) < all_of_them == 40


def test_a_sampler_and_a_seed_of_one_call(lm):
    """They leave the compiled sampler alone; a seed gives what a new sampler with it gives."""
    before, greedy = lm.sampler, generate(lm, "abc", max_new_tokens=20)
    drawn = [
        generate(lm, "abc", max_new_tokens=20, sampler="random", seed=seed) for seed in (3, 3, 4)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert greedy not in drawn
    streamed = lm.stream("abc", max_new_tokens=20, stop_token_ids=None, sampler="random", seed=3)
    assert "".join(streamed) == drawn[0]
    assert lm.sampler is before
    assert generate(lm, "abc", max_new_tokens=20) == greedy
    fresh = copy.copy(lm)
    fresh.compile(samplers.RandomSampler(seed=3))
    assert generate(fresh, "abc", max_new_tokens=20) == drawn[0]
    assert generate(fresh, "abc", max_new_tokens=20) != drawn[0]  # its next seed
    assert generate(fresh, "abc", max_new_tokens=20, seed=3) == drawn[0]
    fresh.kept_runs.close()


@pytest.mark.parametrize("sampler", ["greedy", "random", "beam"])
@pytest.mark.parametrize("seed", ["a", 1.5, -1, 2**64, [1, "b"]])
def test_invalid_seeds(lm, sampler, seed):
    with pytest.raises(InvalidArgumentError, match="seed must be an integer"):
        lm.generate("abc", max_new_tokens=2, sampler=sampler, seed=seed)


def test_replaced_methods_see_the_sampler_of_the_call(lm):
    model = copy.copy(lm)
    model.generate_step = lambda *arguments: type(lm).generate_step(model, *arguments)
    drawn = generate(lm, "abc", max_new_tokens=20, sampler="random", seed=3)
    assert generate(model, "abc", max_new_tokens=20, sampler="random", seed=3) == drawn
    model.kept_runs.close()


@pytest.mark.native("threads")
def test_threads_and_tasks_have_samplers_of_their_own(lm):
    expected = [
        generate(lm, "abc", max_new_tokens=20, sampler="random", seed=seed) for seed in range(4)
    ]

    def call(seed):
        return generate(lm, "abc", max_new_tokens=20, sampler="random", seed=seed)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, range(4))) == expected

    async def tasks():
        return await asyncio.gather(
            *(
                lm.generate_async(
                    "abc", None, None, True, max_new_tokens=20, sampler="random", seed=seed
                )
                for seed in range(4)
            )
        )

    assert asyncio.run(tasks()) == expected


def test_num_return_sequences(lm):
    """Texts of one prompt are adjacent; each row draws for itself."""
    texts = generate(
        lm, ["abc", "a"], max_new_tokens=20, num_return_sequences=2, sampler="random", seed=1
    )
    assert len({*texts}) == 4
    one = generate(lm, "abc", max_new_tokens=20, num_return_sequences=2, sampler="random", seed=1)
    assert one == texts[:2]
    inputs = tiny.packed([[1, 2, 3]], 12)
    packed = lm.generate(
        inputs, stop_token_ids=None, num_return_sequences=3, sampler="random", seed=[4, 4, 5]
    )
    assert tiny.ids_of(packed)[0] == tiny.ids_of(packed)[1] != tiny.ids_of(packed)[2]


def test_stop_texts_and_limits_of_all_beams(lm):
    beams = samplers.BeamSampler(num_beams=3, return_all_beams=True)
    whole = generate(lm, PROMPTS, max_new_tokens=6, sampler=beams)
    stop = whole[0][2]
    cut = generate(lm, PROMPTS, max_new_tokens=6, sampler=beams, stop_texts=[stop])
    assert len(cut) == len(whole) == 6
    assert cut == [text.split(stop)[0] for text in whole]


def test_add_start_token_of_one_call(lm):
    without = lm.generate("abc", 6, None, add_start_token=False)
    with_it = lm.generate("abc", 6, None)  # a new token less
    assert len(without.encode()) > len(with_it.encode())
    assert lm.preprocessor.add_start_token
    assert lm.stream("abc", add_start_token=False).stats.prompt_tokens == 3


class NoSeed(samplers.Sampler):
    def get_next_token(self, probabilities):
        return [0] * probabilities.shape[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer >= 1"),
        ({"top_logprobs": 21}, "top_logprobs must be an integer >= 0 and <= 20"),
        ({"num_return_sequences": 0}, "num_return_sequences must be an integer >= 1"),
        ({"top_logprobs": 2}, "top_logprobs=2 is for the details: add return_details=True"),
        ({"stop_texts": "ab"}, "stop_texts must be a list"),
        ({"sampler": "beam me up"}, "unknown sampler 'beam me up'"),
        ({"sampler": NoSeed(), "seed": 1}, "NoSeed takes no seed"),
        ({"sampler": "random", "seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_invalid_arguments(lm, arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        lm.generate("abc", **arguments)


def test_stop_texts_need_a_tokenizer(lm):
    ids_only = gw.GPT2CausalLM(lm.backbone)
    with pytest.raises(InvalidArgumentError, match="stop_texts need a tokenizer"):
        ids_only.generate(tiny.packed([[1]], 4), stop_token_ids=None, stop_texts=["a"])


def test_max_length_of_a_stream(lm):
    whole = lm.generate("abc", max_length=9, stop_token_ids=None)
    assert "abc" + "".join(lm.stream("abc", 9, None)) == whole
    with pytest.raises(ContextLengthError, match="only 3 fit"):
        lm.stream("abc", 3)


# --- details and callbacks ------------------------------------------------------------------------


def test_details_of_each_row(lm, whole):
    """Text as without details; reasons, ids, log-probabilities of each row."""
    stop = whole[0][0][6:8]
    found = lm.generate(
        PROMPTS, max_new_tokens=20, stop_token_ids=None, stop_texts=[stop], return_details=True,
        top_logprobs=3,
    )  # fmt: skip
    assert [row.text for row in found] == lm.generate(
        PROMPTS, max_new_tokens=20, stop_token_ids=None, stop_texts=[stop]
    )
    assert [row.finish_reason for row in found] == ["stop_text", "length"]
    assert found[1].token_ids == whole[1][1]
    assert found[0].token_ids == whole[1][0][: len(found[0].token_ids)]
    assert [row.prompt_tokens for row in found] == [4, 2]
    for row, prompt in zip(found, lm.preprocessor.encode_prompts(PROMPTS), strict=True):
        expected = lm.logprobs([*prompt, *row.token_ids])[len(prompt) - 1 :]
        assert row.logprobs == pytest.approx(expected, abs=1e-4)
        assert 0 < row.seconds_to_first_token <= row.seconds
        for token, chance, top in zip(row.token_ids, row.logprobs, row.top_logprobs, strict=True):
            assert next(iter(top)) == token  # greedy
            assert len(top) == 3
            assert top[token] == pytest.approx(chance, abs=1e-4)
            assert [*top.values()] == sorted(top.values(), reverse=True)


@pytest.mark.native("PyTorch")
def test_logprobs_of_details_equal_transformers(small, small_lm):
    """Of drawn tokens, with penalties: the model's own log-probabilities."""
    import numpy as np

    from tests.gpu import references
    from tests.models import checkpoints

    sampler = samplers.RandomSampler(seed=5, temperature=1.5, repetition_penalty=1.3)
    row, other = small_lm.generate(
        tiny.packed([[3, 9, 200], [7]], 20), stop_token_ids=None, sampler=sampler,
        return_details=True, top_logprobs=4,
    )  # fmt: skip
    assert (row.text, len(row.token_ids), len(other.token_ids)) == (None, 17, 19)
    logits = checkpoints.logits_of(small[0], [[3, 9, 200, *row.token_ids]])[0]
    chances = references.log_softmax(logits)[2:-1]
    picked = [line[token] for line, token in zip(chances, row.token_ids, strict=True)]
    np.testing.assert_allclose(row.logprobs, picked, atol=1e-3)
    for line, top in zip(chances, row.top_logprobs, strict=True):
        np.testing.assert_allclose([*top.values()], np.sort(line)[::-1][:4], atol=1e-3)
        np.testing.assert_allclose([*top.values()], [line[i] for i in top], atol=1e-3)
    pairs = zip(chances, picked, strict=True)
    assert row.ranks == [(line > chance).sum() for line, chance in pairs]
    np.testing.assert_allclose(row.entropies, -(np.exp(chances) * chances).sum(-1), atol=1e-3)


def test_finish_reasons(lm, whole):
    def reason(**arguments):
        """The reason and number of new tokens of `generate`, after a comparison with `stream`."""
        details = lm.generate("abc", return_details=True, **arguments)
        found = details.finish_reason, len(details.token_ids)
        if details.token_ids:
            for model in (lm, in_one_piece):
                with model.stream("abc", **arguments) as stream:
                    list(stream)
                assert (stream.stats.finish_reason, stream.stats.new_tokens) == found
        return found

    in_one_piece = copy.copy(lm)
    in_one_piece.generate_step = lambda *arguments: lm.generate_step(*arguments)
    ids = whole[1][0]
    token = next(i for i in ids if ids.index(i) > 0)
    assert reason(stop_token_ids=[token]) == ("stop", ids.index(token) + 1)
    assert reason(stop_token_ids=None) == ("context", tiny.CONTEXT - 4)
    assert reason(stop_token_ids=None, max_new_tokens=tiny.CONTEXT - 4)[0] == "context"
    assert reason(stop_token_ids=None, max_length=9) == ("length", 5)
    assert reason(stop_token_ids=None, max_length=4) == ("length", 0)


@pytest.mark.parametrize("of", ["the decoding loop", "a replaced generate_step", "beams"])
def test_a_callback_sees_each_token_and_may_end_the_call(lm, of):
    model, extra = lm, {}
    if of == "a replaced generate_step":
        model = copy.copy(lm)
        model.generate_step = lambda *arguments: lm.generate_step(*arguments)
    elif of == "beams":
        extra = {"sampler": samplers.BeamSampler(num_beams=2)}
    seen = []

    def look(row, token, text):
        seen.append((row, token, text))
        return len(seen) < 7

    arguments = {"stop_token_ids": None, "max_new_tokens": 10, "return_details": True, **extra}
    every = model.generate("abc", callback=lambda *token: seen.append(token), **arguments)
    assert [token for _, token, _ in seen] == every.token_ids
    new = "".join(text for _, _, text in seen)
    assert ("abc" + new).rstrip("\ufffd") == every.text.rstrip("\ufffd")
    seen.clear()
    ended = model.generate("abc", callback=look, **arguments)
    assert (ended.finish_reason, ended.token_ids) == ("aborted", every.token_ids[:7])
    seen.clear()
    rows = model.generate(PROMPTS, callback=look, **arguments)
    assert sum(len(row.token_ids) for row in rows) == len(seen) == 7
    assert {row.finish_reason for row in rows} <= {"aborted", "length"}


def test_arguments_that_are_checked_before_anything_is_computed(lm):
    async def later(row, token, text):
        pass

    class Later:
        async def __call__(self, row, token, text):
            pass

    small: Any = gw.GPT2CausalLM(gw.GPT2Backbone(4, 1, 1, 8, 8, max_sequence_length=8, seed=1))
    model: Any = copy.copy(lm)
    computed: list[Any] = []
    for each in (model, small):
        each.generate_step = lambda *args: computed.append(args)
    with pytest.raises(InvalidArgumentError, match=r"callback must be a function .* not 5"):
        model.generate("abc", callback=5)
    for callback in (later, Later()):
        with pytest.raises(InvalidArgumentError, match="a coroutine function"):
            model.generate("abc", callback=callback)
    with pytest.raises(InvalidArgumentError, match=r"top_logprobs must .*4.*, not 5"):
        small.generate(
            tiny.packed([[1, 2]], 5), stop_token_ids=None, return_details=True, top_logprobs=5
        )
    assert not computed
    small.dispose()


def test_an_exception_of_a_callback_ends_the_call(lm):
    """It arrives at the caller, nothing leaks, and the next call works."""

    def fail(row, token, text):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        generate(lm, "abc", max_new_tokens=10, callback=fail)
    assert generate(lm, "abc", max_new_tokens=10)


def test_logprobs_are_computed_only_when_asked(lm, whole, monkeypatch):
    from gpt2_wgpu.models import evaluation

    monkeypatch.setattr(evaluation, "_window_values", None)
    assert generate(lm, PROMPTS, max_new_tokens=20) == whole[0]
