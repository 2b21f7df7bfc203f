"""This package against the recorded values of KerasHub, transformers, TransformerLens and lm-eval.

`make parity` computes the values anew with the packages themselves, then runs these tests.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from tests.parity import cases

pytestmark = [pytest.mark.native("NumPy"), pytest.mark.usefixtures("no_leak")]


def assert_close(found: Any, expected: Any, atol: float = 2e-4) -> None:
    np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-5)


def logits_with_cache(lm: gw.GPT2CausalLM) -> tuple[np.ndarray, np.ndarray]:
    """Logits and hidden states of the prefill's last position and of each step."""
    ids = np.array(cases.IDS)
    borders = [0, *range(cases.PREFILLED, ids.shape[1] + 1)]
    with gw.tidy():
        cache = lm.backbone.new_cache(*ids.shape)
        logits, hidden = [], []
        for a, b in pairwise(borders):
            step, states, _ = lm.call_with_cache(ids[:, a:b], cache, a)
            assert states is not None
            logits.append(step.numpy()[:, -1])
            hidden.append(states.numpy()[:, -1])
    return np.stack(logits, 1), np.stack(hidden, 1)


def test_logits_with_a_cache_equal_keras_hub_s(lm: gw.GPT2CausalLM) -> None:
    expected = cases.recorded("keras_hub")["logits"]
    logits, hidden = logits_with_cache(lm)
    assert_close(logits[..., :: cases.EVERY], expected["some"])
    np.testing.assert_array_equal(logits.argmax(-1), expected["argmax"])
    total = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    assert_close(total, expected["logsumexp"])
    assert_close(hidden[..., ::4], expected["hidden"])


def test_scores_equal_keras_hub_s(lm: gw.GPT2CausalLM) -> None:
    expected = cases.recorded("keras_hub")["score"]

    def halved(x: gw.Tensor, index: int) -> gw.Tensor:
        return gw.ops.mul(x, 0.5) if index in (-1, 1) else x

    loss: dict[str, Any] = {"scoring_mode": "loss", "target_ids": cases.TARGETS}
    with gw.tidy():
        logits = lm.score(cases.IDS).numpy()
        assert_close(logits[..., :: cases.EVERY], expected["logits"])
        assert_close(lm.score(cases.IDS, **loss).numpy(), expected["loss"])
        padded = np.array(cases.PADDED)
        found = lm.score(cases.IDS, padded, **loss).numpy()
        shown = padded.astype(bool)
        assert_close(found[shown], np.array(expected["padded"])[shown])
        changed = lm.score(cases.IDS, layer_intercept_fn=halved, **loss).numpy()
        assert_close(changed, expected["changed"])


@pytest.mark.parametrize("reference", ["transformers", "transformer_lens"])
def test_logits_without_a_cache_equal_theirs(lm: gw.GPT2CausalLM, reference: str) -> None:
    expected = np.array(cases.recorded(reference)["logits"])
    with gw.tidy():
        inputs = {"token_ids": cases.IDS, "padding_mask": np.ones_like(cases.IDS)}
        logits = lm(inputs).numpy()[..., :: cases.EVERY]
    found = logits if expected.ndim == 3 else logits[:, -1]
    assert_close(found, expected)


def test_the_residual_stream_equals_transformer_lens_s(lm: gw.GPT2CausalLM) -> None:
    """After each attention and each MLP."""
    backbone, found = lm.backbone, []
    with gw.tidy():
        ids, start = backbone.as_uint32(cases.IDS), backbone.as_uint32([0] * len(cases.IDS))
        cache = backbone.new_cache(*np.shape(cases.IDS))
        for half in backbone.half_blocks(ids, cache, start):
            found.append(half.numpy()[:, -1, : backbone.config.n_embd : 4])
    expected = cases.recorded("transformer_lens")["residual"]
    assert_close(np.stack(found), expected, atol=5e-4)


def test_every_hook_point_equals_transformer_lens_s(lm: gw.GPT2CausalLM) -> None:
    expected = cases.recorded("transformer_lens")["points"]
    with gw.tidy():
        found = lm.run_with_cache(cases.IDS, "*")[1].numpy()
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(cases.sampled(found[name]), values, atol=1e-4, err_msg=name)


def test_greedy_texts_equal_keras_hub_s(lm: gw.GPT2CausalLM) -> None:
    expected = cases.recorded("keras_hub")["texts"]
    lm.compile(sampler="greedy")
    assert [lm.generate(prompt, cases.LENGTH) for prompt in cases.PROMPTS] == expected["single"]
    assert lm.generate(cases.PROMPTS, cases.LENGTH) == expected["batch"]
    stripped = lm.generate(cases.PROMPTS, cases.LENGTH, strip_prompt=True)
    assert stripped == expected["stripped"]
    free = lm.generate(cases.PROMPTS, cases.LENGTH, stop_token_ids=None)
    assert free == expected["no stop"]


@pytest.mark.parametrize("name", ["free", "stopped"])
def test_packed_ids_and_masks_equal_keras_hub_s(lm: gw.GPT2CausalLM, name: str) -> None:
    """Ids after a row's stop token are padding: KerasHub goes on until all rows have stopped."""
    recorded = cases.recorded("keras_hub")["packed"]
    expected = {key: np.array(value) for key, value in recorded[name].items()}
    assert lm.preprocessor is not None
    inputs = lm.preprocessor.generate_preprocess(cases.PROMPTS, sequence_length=cases.LENGTH)
    lm.compile(sampler="greedy")
    found = lm.generate(inputs, stop_token_ids=recorded["stops"] if name == "stopped" else None)
    np.testing.assert_array_equal(found["padding_mask"], expected["padding_mask"])
    shown = expected["padding_mask"].astype(bool)
    np.testing.assert_array_equal(found["token_ids"][shown], expected["token_ids"][shown])
    assert shown.all() == (name == "free")


@pytest.mark.parametrize("penalty", [1.0, *cases.PENALTIES])
def test_greedy_ids_equal_transformers_(lm: gw.GPT2CausalLM, penalty: float) -> None:
    values = cases.recorded("transformers")
    expected = values["greedy"] if penalty == 1 else values["penalized"][str(penalty)]
    assert lm.preprocessor is not None
    assert lm.preprocessor.encode_prompts(cases.PROMPTS) == values["prompts"]
    lm.compile(sampler=samplers.Greedy(repetition_penalty=penalty))
    for prompt, ids in zip(cases.PROMPTS, expected, strict=True):
        stream = lm.stream(
            prompt, max_new_tokens=cases.LENGTH - len(lm.preprocessor.encode_prompts([prompt])[0])
        )
        "".join(stream)
        start = len(ids) - len(stream.stats.token_ids)
        assert stream.stats.token_ids == ids[start:]


@pytest.mark.parametrize("name", cases.SAMPLERS)
def test_draws_follow_their_probabilities(chooser: gw.GPT2CausalLM, name: str) -> None:
    """Of 8,064 draws: no token that a reference excludes, and their counts by chi-squared."""
    sampler = samplers.get(cases.SAMPLERS[name])
    vars(sampler)["seed"] = 20_261
    chooser.compile(sampler=sampler)
    mask = np.zeros((128, 64), bool)
    mask[:, 0] = True
    inputs = {"token_ids": np.zeros_like(mask, int), "padding_mask": mask}
    ids = chooser.generate(inputs, stop_token_ids=None)["token_ids"][:, 1:]
    counts = np.bincount(ids.ravel(), minlength=len(cases.LOGITS))
    for reference in ("keras_hub", "transformers"):
        distributions = cases.recorded(reference)["distributions"]
        if name not in distributions:
            assert (reference, name) == ("transformers", "top_p 0.9 of 4")
            continue
        expected = np.array(distributions[name]) * counts.sum()
        kept = expected > 0
        assert not counts[~kept].any()
        statistic = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
        assert statistic < chi_squared_bound(int(kept.sum()) - 1)


def chi_squared_bound(freedom: int) -> float:
    """A value that chi-squared with so many degrees of freedom exceeds once in 10,000 times.

    Wilson and Hilferty's approximation.
    """
    if freedom == 0:
        return 1e-9
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + 3.719 * part**0.5) ** 3)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("end", [True, False])
def test_training_rows_equal_keras_hub_s(lm: gw.GPT2CausalLM, start: bool, end: bool) -> None:
    expected = cases.recorded("keras_hub")["preprocessor"]["training"][f"{start} {end}"]
    preprocessor = gw.GPT2CausalLMPreprocessor(
        tokenizer(lm), cases.PACKED_LENGTH, add_start_token=start, add_end_token=end
    )
    x, y, weights = preprocessor(cases.TEXTS)
    found: dict[str, Any] = {**x, "y": y, "weights": weights}
    assert found.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key])


def test_packed_prompts_equal_keras_hub_s(lm: gw.GPT2CausalLM) -> None:
    expected = cases.recorded("keras_hub")["preprocessor"]
    preprocessor = gw.GPT2CausalLMPreprocessor(tokenizer(lm), cases.PACKED_LENGTH)
    found = preprocessor.generate_preprocess(cases.SHORT_TEXTS)
    for key in expected["prompts"]:
        np.testing.assert_array_equal(found[key], expected["prompts"][key])
    assert preprocessor.generate_postprocess(found) == expected["texts"]


def tokenizer(lm: gw.GPT2CausalLM) -> gw.GPT2Tokenizer:
    assert lm.preprocessor is not None
    return lm.preprocessor.tokenizer


def test_log_likelihoods_equal_lm_eval_s(lm: gw.GPT2CausalLM) -> None:
    """Without a start token before a context, as lm-eval has it; with one before a whole text."""
    expected = cases.recorded("lm_eval")
    assert lm.perplexity(cases.SCORED) == pytest.approx(expected["perplexity"], rel=1e-4)
    for (context, continuation), score in zip(
        cases.CONTINUATIONS, expected["continuations"], strict=True
    ):
        before, after = tokenizer(lm).encode(context), tokenizer(lm).encode(continuation)
        with gw.tidy():
            ids = [before + after]
            logits = lm({"token_ids": ids, "padding_mask": np.ones_like(ids)}).numpy()[0]
        logits = logits[len(before) - 1 : -1].astype(np.float64)
        chosen = logits[np.arange(len(after)), after]
        nats = (chosen - np.log(np.exp(logits).sum(-1))).sum()
        assert nats == pytest.approx(score["nats"], abs=2e-4)
        assert (logits.argmax(-1) == after).all() == score["greedy"]
