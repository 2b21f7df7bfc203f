"""Verification of benchmarked tokens: wrong tokens raise an error that names them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.bench import reference
from gpt2_wgpu.bench.reference import Checked, check_device, check_same, check_tokens
from gpt2_wgpu.bench.runs import prompts_of, timed
from gpt2_wgpu.errors import BenchmarkError
from gpt2_wgpu.webgpu import sync


def generated(model, batch=2, prompt=7, new=12):
    prompts = prompts_of(model.backbone.config.vocab_size, batch, prompt)
    return prompts, sync(timed(model, prompts, new), "timed").tokens


def checked(model, prompts, tokens):
    return sync(check_tokens(model, prompts, tokens), "check_tokens")


@pytest.mark.usefixtures("no_leak")
def test_right_tokens_pass(either):
    found = checked(either, *generated(either))
    assert found.tokens == 24
    assert found.distinct > 12
    assert found.near_ties == 0
    assert found.smallest_lead > 1e-4


@pytest.mark.usefixtures("no_leak")
def test_logits_are_computed_in_pieces(lm, monkeypatch):
    prompts, tokens = generated(lm)
    whole = checked(lm, prompts, tokens)
    monkeypatch.setattr(reference, "PLACES", 5)
    assert checked(lm, prompts, tokens) == whole


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize(("row", "place"), [(0, 0), (1, 5), (1, 11)])
def test_a_wrong_token_is_named(tales, row, place):
    prompts, tokens = generated(tales)
    right = tokens[row][place]
    tokens[row][place] = right ^ 1
    with pytest.raises(BenchmarkError) as raised:
        checked(tales, prompts, tokens)
    assert str(raised.value).startswith(
        f"new token {place} of row {row} is {right ^ 1}, and should be {right} by the uncached "
        "forward pass (logit "
    )


@pytest.mark.usefixtures("no_leak")
def test_a_sampler_that_does_not_take_the_largest_is_seen(lm, monkeypatch):
    options = samplers.Random(temperature=2.0, seed=1).next_options()
    monkeypatch.setattr(samplers.Greedy, "next_options", lambda self: options)
    prompts, tokens = generated(lm)
    with pytest.raises(BenchmarkError, match=r"new token \d of row 0 is \d+, and should be"):
        checked(lm, prompts, tokens)


def compare(token, logits):
    return reference._compare(0, [token], [[7, 8, 9, 3]], [logits], Checked())


def test_nearly_equal_logits_may_swap():
    assert compare(7, [2.0, 1.0, 0.5, 0.0]) == Checked(1, 0, 0, 1.0)
    assert compare(8, [2.0, 1.996, 0.5, 0.0]).near_ties == 1
    for token, logits in ((8, [2.0, 1.99, 0, 0]), (9, [2.0, 1.999, 1.9, 0]), (4, [2.0] * 4)):
        with pytest.raises(BenchmarkError, match=f"is {token}, and should be 7"):
            compare(token, logits)


@pytest.mark.parametrize("place", [0, 3])
def test_nan_is_no_logit(place):
    logits = [2.0, 1.0, 0.5, 0.0]
    logits[place] = float("nan")
    with pytest.raises(BenchmarkError, match="wrong outputs have no speed"):
        compare(7, logits)


def test_runs_have_to_repeat_each_other():
    check_same([[1, 2], [3, 4]], [[1, 2], [3, 4]], "run 1")
    with pytest.raises(BenchmarkError, match=r"new token 1 of row 1 is 5 in run 2 and was 4"):
        check_same([[1, 2], [3, 4]], [[1, 2], [3, 5]], "run 2")


def test_a_device_that_computes_wrong_numbers_has_no_speed(device, monkeypatch):
    bad = SimpleNamespace(name="gelu", passed=False, detail="element 3: got 1, expected 2")

    async def failing(*_):
        return SimpleNamespace(checks=[SimpleNamespace(name="matmul", passed=True), bad])

    sync(check_device(device, ["float16"]), "check_device")
    monkeypatch.setattr(reference, "self_check_async", failing)
    with pytest.raises(BenchmarkError, match=r"wrong numbers, .*: gelu \(element 3: got 1,"):
        sync(check_device(device, ["float16"]), "check_device")
