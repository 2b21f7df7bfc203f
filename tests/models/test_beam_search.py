"""Beam search of a model, against transformers on the same weights."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, NumericalError
from gpt2_wgpu.models import search_step
from gpt2_wgpu.models.beam_search import beam_search
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.samplers import BeamSampler
from gpt2_wgpu.webgpu.backends import flush_promises
from gpt2_wgpu.webgpu.waiting import sync
from tests.memory.tiny import packed
from tests.models.checkpoints import without_gradients

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

PROMPTS = [[11, 5, 100, 7], [3, 200, 200, 41], [90, 8, 17, 60]]
MANY = [*range(40)]
PAD = 210


@without_gradients
def reference(model, prompts, length, stops, beams, **options):
    """transformers' ids, rows of at most ``length``, and scores."""
    import torch

    ids = torch.tensor(prompts)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=beams, num_return_sequences=beams,
        do_sample=False, eos_token_id=stops or None, pad_token_id=PAD, max_length=length,
        return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip
    return out.sequences.numpy(), out.sequences_scores.numpy()


def generated(lm, prompts, length, stops):
    """Ids with PAD after the end, and scores."""
    out = lm.generate(packed(prompts, length), stop_token_ids=stops)
    return np.where(out["padding_mask"], out["token_ids"], PAD), out.get("scores")


@pytest.mark.parametrize(
    ("beams", "options", "stops", "length"),
    [
        (3, {"length_penalty": 1.0, "early_stopping": False}, [], 9),
        (5, {"length_penalty": 0.0, "early_stopping": "never"}, [5, 7], 14),
        (4, {"length_penalty": 2.0, "early_stopping": "never"}, MANY, 20),
        (2, {"length_penalty": -1.0, "early_stopping": True}, MANY, 20),
        (3, {"length_penalty": 0.6, "early_stopping": False}, MANY, 30),
    ],
)
def test_ids_and_scores_equal_transformers(small, small_lm, beams, options, stops, length):
    expected, scores = reference(small[0], PROMPTS, length, stops, beams, **options)
    small_lm.compile(BeamSampler(beams, return_all_beams=True, **options))
    found, found_scores = generated(small_lm, PROMPTS, length, stops)
    np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)
    assert (found[:, expected.shape[1] :] == PAD).all()
    np.testing.assert_allclose(found_scores, scores, rtol=1e-5, atol=1e-5)
    small_lm.compile(BeamSampler(beams, **options))
    np.testing.assert_array_equal(generated(small_lm, PROMPTS, length, stops)[0], found[::beams])


def test_num_return_sequences_are_the_best_beams(small, small_lm):
    """As in transformers."""
    expected, _ = reference(small[0], PROMPTS, 14, MANY, 4)
    best = expected.reshape(len(PROMPTS), 4, -1)[:, :3].reshape(9, -1)
    small_lm.compile(BeamSampler(4))
    call = {"stop_token_ids": MANY, "num_return_sequences": 3}
    out = small_lm.generate(packed(PROMPTS, 14), **call)
    found = np.where(out["padding_mask"], out["token_ids"], PAD)
    np.testing.assert_array_equal(found[:, : expected.shape[1]], best)
    one = small_lm.generate({key: rows[0] for key, rows in packed(PROMPTS, 14).items()}, **call)
    np.testing.assert_array_equal(one["token_ids"], out["token_ids"][:3])
    seen: list[tuple[int, int]] = []
    details = small_lm.generate(
        packed(PROMPTS, 14), return_details=True, **call,
        callback=lambda row, token, _: seen.append((row, token)),
    )  # fmt: skip
    assert seen == [(row, token) for row, each in enumerate(details) for token in each.token_ids]
    assert len(details) == 9
    with pytest.raises(InvalidArgumentError, match="num_return_sequences 5 exceeds num_beams 4"):
        small_lm.generate(packed(PROMPTS, 14), stop_token_ids=None, num_return_sequences=5)
    with pytest.raises(InvalidArgumentError, match="return_all_beams returns num_beams 4"):
        small_lm.generate(
            packed(PROMPTS, 14), sampler=BeamSampler(4, return_all_beams=True), **call
        )


def test_a_stream_has_no_tokens_after_a_stop_text(tales):
    tales.compile(BeamSampler(3))
    whole = tales.generate("The king", max_new_tokens=16, strip_prompt=True, return_details=True)
    stop = whole.text[12:15]
    stream = tales.stream("The king", max_new_tokens=16, stop_texts=[stop])
    assert "".join(stream) == whole.text[: whole.text.find(stop)]
    decode = tales.preprocessor.tokenizer.decode
    ids = stream.stats.token_ids
    assert stop in decode(ids)
    assert stop not in decode(ids[:-1])


def test_texts_of_num_return_sequences(tales):
    tales.compile(BeamSampler(3))
    arguments = {"max_new_tokens": 8, "num_return_sequences": 2}
    texts = tales.generate("The king", **arguments)
    every = tales.generate(
        "The king", max_new_tokens=8, sampler=BeamSampler(3, return_all_beams=True)
    )
    assert texts == every[:2]
    assert tales.generate(["The king", "A"], **arguments)[:2] == texts


def test_one_beam_is_greedy_search(small_lm):
    small_lm.compile("greedy")
    expected = generated(small_lm, PROMPTS, 20, [])[0]
    small_lm.compile(BeamSampler(1))
    np.testing.assert_array_equal(generated(small_lm, PROMPTS, 20, [])[0], expected)


def test_a_row_does_not_depend_on_its_batch(small_lm):
    small_lm.compile(BeamSampler(3))
    prompts = [[1, 2, 3], [9], [7] * 30]
    batch, _ = generated(small_lm, prompts, 33, MANY)
    for row, prompt in zip(batch, prompts, strict=True):
        np.testing.assert_array_equal(generated(small_lm, [prompt], 33, MANY)[0][0], row)


def test_excluded_tokens_and_too_few(small, small_lm):
    candidates = Candidates(150, (3, 41))
    found = sync(
        beam_search(BeamSampler(3), small_lm, PROMPTS, [14] * 3, [], candidates), "beam_search"
    )
    expected, _ = reference(small[0], PROMPTS, 14, [], 3, suppress_tokens=[3, 41, *range(150, 211)])
    rows = [[*prompt, *beams[0].tokens] for prompt, beams in zip(PROMPTS, found, strict=True)]
    np.testing.assert_array_equal(rows, expected[::3])
    few = beam_search(BeamSampler(3), small_lm, PROMPTS, [14] * 3, [1], Candidates(4, (2,)))
    with pytest.raises(InvalidArgumentError, match=r"num_beams 3 exceeds .* 2"):
        sync(few, "beam_search")


def test_text_and_streams(tales):
    tales.compile(BeamSampler(3, return_all_beams=True))
    texts = tales.generate("The king", max_length=16)
    assert len(texts) == 3
    assert all(text.startswith("The king") for text in texts)
    new = tales.generate(["The king", "A"], max_length=16, strip_prompt=True)
    assert ["The king" + text for text in new[:3]] == texts
    tales.compile("beam")
    tales.sampler.num_beams = 3
    assert tales.generate("The king", max_length=16) == texts[0]
    (ids,) = tales.preprocessor.encode_prompts(["The king"])
    with tales.stream("The king", max_new_tokens=16 - len(ids)) as stream:
        assert "The king" + "".join(stream) == texts[0]
    assert stream.stats.new_tokens == 16 - len(ids)
    assert stream.stats.tokens_per_second is None  # they arrive together
    assert asyncio.run(tales.generate_async("The king", 16)) == texts[0]


def test_limits_and_stop_texts_of_a_call(tales):
    tales.compile("greedy")
    prompts, beams = ["The king had three sons", "A"], BeamSampler(2, return_all_beams=True)
    texts = tales.generate(prompts, max_new_tokens=6, sampler=beams, stop_token_ids=None)
    for prompt, found in zip(prompts, (texts[:2], texts[2:]), strict=True):
        alone = tales.generate(prompt, max_new_tokens=6, sampler=beams, stop_token_ids=None)
        assert alone == found
        assert len(tales.preprocessor.encode_prompts([found[0]])[0]) <= 12
    packed_ids = tales.preprocessor.generate_preprocess("A", sequence_length=8)
    out = tales.generate(packed_ids, sampler=beams, strip_prompt=True, max_new_tokens=3)
    assert len(out["token_ids"]) == len(out["scores"]) == 2


def test_a_full_prompt_comes_back(small_lm):
    small_lm.compile(BeamSampler(2, return_all_beams=True))
    ids, scores = generated(small_lm, [[1, 2, 3]], 3, [])
    assert (ids.tolist(), scores.tolist()) == ([[1, 2, 3]] * 2, [0, 0])


def test_no_step_creates_a_buffer(device, small_lm, monkeypatch):
    small_lm.compile(BeamSampler(3))
    created = []
    run = search_step.SearchStep.run

    async def counted(self, *args):
        before = allocated[0]
        result = await run(self, *args)
        created.append(allocated[0] - before)
        return result

    allocated = [0]
    allocate = device.memory.allocate

    def counting(*args):
        allocated[0] += 1
        return allocate(*args)

    monkeypatch.setattr(device.memory, "allocate", counting)
    monkeypatch.setattr(search_step.SearchStep, "run", counted)
    generated(small_lm, PROMPTS, 12, [])
    assert created == [0] * 8
    assert allocated[0] > 0


def test_a_replaced_call_with_cache_is_called(small_lm, monkeypatch):
    small_lm.compile(BeamSampler(2))
    expected, _ = generated(small_lm, PROMPTS, 10, [])
    original, calls = small_lm.call_with_cache, []

    def replaced(token_ids, cache, cache_update_index):
        found = original(token_ids, cache, cache_update_index)
        calls.append(found[0].numpy().shape)  # reading: the step runs eagerly
        return found

    monkeypatch.setattr(small_lm, "call_with_cache", replaced)
    np.testing.assert_array_equal(generated(small_lm, PROMPTS, 10, [])[0], expected)
    assert calls[1:] == [(6, 1, 211)] * 6  # after the prompt


def test_logits_that_are_not_finite_raise(small_lm, monkeypatch):
    small_lm.compile(BeamSampler(2))
    original = small_lm.call_with_cache

    def broken(token_ids, cache, cache_update_index):
        logits, hidden, cache = original(token_ids, cache, cache_update_index)
        return logits * float("nan"), hidden, cache

    monkeypatch.setattr(small_lm, "call_with_cache", broken)
    with pytest.raises(NumericalError, match="beam"):
        generated(small_lm, PROMPTS, 10, [])


def test_a_lost_device_is_replaced(small, monkeypatch):
    lost = gw.Device()
    with gw.GPT2CausalLM.from_preset(small[1], None, "float32", lost) as lm:
        lm.compile(BeamSampler(3))
        expected, _ = generated(lm, PROMPTS, 14, MANY)
        run, steps = search_step.SearchStep.run, []

        async def losing(self, *args):
            steps.append(0)
            if len(steps) == 4:
                self.device.gpu.destroy()
                flush_promises(self.device.gpu)
            return await run(self, *args)

        monkeypatch.setattr(search_step.SearchStep, "run", losing)
        np.testing.assert_array_equal(generated(lm, PROMPTS, 14, MANY)[0], expected)
        assert lm.device is not lost
        assert gw.memory(lost).num_tensors == 0
    lm.device.close()
    lost.close()


def test_left_padded_ids(small_lm):
    small_lm.compile(BeamSampler(2, return_all_beams=True))
    expected, _ = generated(small_lm, [[1, 2, 3]], 9, [])
    inputs = {"token_ids": [[0, 0, 1, 2, 3, *[0] * 6]], "padding_mask": [[0, 0, 1, 1, 1, *[0] * 6]]}
    out = small_lm.generate(inputs, stop_token_ids=[])
    np.testing.assert_array_equal(out["token_ids"][:, 2:], expected)
    assert out["padding_mask"][:, 2:].all()
