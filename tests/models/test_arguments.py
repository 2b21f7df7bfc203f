"""Invalid arguments of models, rejected before an allocation, and arguments at their limits."""

from __future__ import annotations

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ConfigError, InvalidArgumentError, ShapeError

pytestmark = pytest.mark.usefixtures("no_leak")


def test_a_tokenizer_of_another_model_is_refused(tales):
    """Its ids would be looked up past the end of the embedding, in silence."""
    foreign = gw.GPT2Tokenizer()
    own = tales.backbone.config.vocab_size
    with pytest.raises((ConfigError, InvalidArgumentError), match=rf"50257\b.*\b{own}\b"):
        gw.GPT2CausalLM(tales.backbone, gw.GPT2CausalLMPreprocessor(foreign, 64))


def test_ids_of_another_model_are_refused(tales, monkeypatch):
    """A tokenizer may change after the model was made: ids are checked where they are used."""
    own = tales.backbone.config.vocab_size
    foreign = gw.GPT2CausalLMPreprocessor(gw.GPT2Tokenizer(), 64)
    monkeypatch.setattr(tales, "preprocessor", foreign)
    with pytest.raises(InvalidArgumentError, match=rf"\[0, {own}\)"):
        tales.generate("A preposterous hippopotamus")
    with pytest.raises(InvalidArgumentError, match=rf"\[0, {own}\)"):
        list(tales.stream("A preposterous hippopotamus"))


@pytest.mark.parametrize("seed", [-1, 1.5, 2**32, None])
def test_bad_seeds_of_random_weights(device, seed):
    with pytest.raises(InvalidArgumentError, match=f"seed must be an integer .* not {seed}"):
        gw.GPT2Backbone(50, 1, 2, 16, 32, max_sequence_length=8, seed=seed)


@pytest.mark.parametrize("temperature", [0, 1e-40, 5e-324])
@pytest.mark.native("PyTorch")
def test_a_temperature_next_to_zero_is_greedy(small_lm, temperature):
    inputs = {"token_ids": [[5, 6, 7] + [0] * 20], "padding_mask": [[1, 1, 1] + [0] * 20]}
    small_lm.compile(sampler="greedy")
    greedy = small_lm.generate(inputs, stop_token_ids=None)["token_ids"].tolist()
    small_lm.compile(sampler=samplers.Random(temperature=temperature, seed=1))
    assert small_lm.generate(inputs, stop_token_ids=None)["token_ids"].tolist() == greedy


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lm: lm.backbone([[1, 2]]), "a backbone takes .*not list"),
        (lambda lm: lm.backbone({"token_ids": [[1, 2]], "padding_mask": [[1]]}), "padding_mask"),
        (lambda lm: lm.call_with_cache([[1]], None, 0), "not NoneType"),
        (lambda lm: lm.stream(["a"]), "no preprocessor: stream gives text"),
        (lambda lm: type(lm).from_preset("fairytales", device="cuda"), "not 'cuda'"),
        (lambda lm: type(lm)("gpt2"), "backbone must be a GPT2Backbone, not 'gpt2'"),
        (lambda lm: type(lm)(lm.backbone, "x"), "must be a GPT2CausalLMPreprocessor, not 'x'"),
        (lambda lm: lm.divergence([[1]], "float32"), "reference must be an EvaluatedCausalLM, not"),
    ],
)
@pytest.mark.native("PyTorch")
def test_wrong_kinds_of_arguments(small_lm, call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call(small_lm)


def test_messages_about_masks_are_short(tales):
    rows = 500
    ragged = {"token_ids": [[1, 2]] * rows, "padding_mask": [[1]] * rows}
    with pytest.raises(ShapeError, match=r"^padding_mask has rows of") as caught:
        tales.backbone(ragged)
    assert len(str(caught.value)) < 200
    holed = {"token_ids": [[1] * rows], "padding_mask": [[0, 1] * (rows // 2)]}
    with pytest.raises(InvalidArgumentError, match=r"^row 0 of padding_mask must") as shorter:
        tales.generate_step(holed)
    assert len(str(shorter.value)) < 250


@pytest.mark.native("PyTorch")
def test_a_cache_of_another_model_is_refused(small_lm, device):
    with gw.tidy():
        cache = gw.nn.KVCache(device, 1, 2, 8, 3, 16)
        with pytest.raises(ShapeError, match="not of this model"):
            small_lm.call_with_cache([[1]], cache, 0)
