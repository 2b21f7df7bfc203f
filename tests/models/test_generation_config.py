"""Rules and warnings of generation_config.json, against transformers on the same directory."""

from __future__ import annotations

import copy
import json
import shutil
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import ConfigError, InvalidArgumentError
from gpt2_wgpu.models.generation_config import GenerationSettings
from gpt2_wgpu.nn import TokenRules
from gpt2_wgpu.sampling_parameters import with_defaults
from tests.memory.tiny import packed
from tests.models.checkpoints import without_gradients

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("PyTorch")]

PROMPT = [11, 5, 100, 7]


@pytest.fixture
def load(small, tmp_path):
    """Load the small model with settings in its generation_config.json -> (model, directory)."""
    loaded = []

    def load(**settings):
        directory = tmp_path / f"model{len(loaded)}"
        shutil.copytree(small[1], directory)
        (directory / "generation_config.json").write_text(json.dumps(settings))
        lm = gw.GPT2CausalLM.from_preset(directory, preprocessor=None, dtype="float32")
        loaded.append(lm)
        lm.compile("greedy")
        return lm, directory

    yield load
    for lm in loaded:
        lm.dispose()


def text(lm, length=24):
    out = lm.generate(packed([PROMPT], length), stop_token_ids=None)
    return out["token_ids"][0].tolist()


@without_gradients
def reference(directory, max_length=24):
    import torch
    from transformers import GPT2LMHeadModel

    ids = torch.tensor([PROMPT])
    model = GPT2LMHeadModel.from_pretrained(directory)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=[],
        max_length=max_length, pad_token_id=210,
    )  # fmt: skip
    return out[0].tolist()


def test_rules_are_obeyed_and_arguments_win(small_lm, load):
    small_lm.compile("greedy")
    plain = text(small_lm)
    settings = {"suppress_tokens": plain[6:8], "no_repeat_ngram_size": 1, "forced_eos_token_id": 9}
    lm, directory = load(**settings)
    expected = reference(directory)
    assert text(lm) == expected != plain
    assert lm.token_rules == TokenRules(
        suppress_tokens=tuple(plain[6:8]), no_repeat_ngram_size=1, forced_eos_token_id=(9,)
    )
    lm.compile(samplers.Greedy(forced_eos_token_id=8))
    assert text(lm)[-1] == 8
    for sampler, lookup in ((samplers.ContrastiveSampler(1), 0), ("greedy", 2)):
        lm.compile(sampler, prompt_lookup_num_tokens=lookup)
        assert text(lm) == expected
    lm.token_rules = TokenRules()
    lm.compile("greedy")
    assert text(lm) == plain


def test_settings_that_are_not_obeyed_are_named_once(load):
    said = r"sets top_h, num_beams, which .* \(top_h: logits_processors of compile; num_beams: only"
    with pytest.warns(UserWarning, match=said) as caught:
        load(
            do_sample=True,
            top_h=0.5,
            top_k=9,
            num_beams=4,
            length_penalty=2.0,
            use_cache=True,
            top_p=None,
        )
    assert len(caught) == 1


def test_the_warning_of_several_texts_has_the_argument(load):
    with pytest.warns(UserWarning, match=r"\(num_return_sequences: generate\(..., .*=3\)\)"):
        load(do_sample=True, num_return_sequences=3)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "length_penalty": -2.0, "early_stopping": True, "top_k": 9},
        {"num_beams": 3, "force_words_ids": [[5, 6], [[7], [8]]], "repetition_penalty": 1.5},
        {"num_beams": 2, "do_sample": False, "temperature": 0.5, "penalty_alpha": 0.5},
    ],
    ids=str,
)
def test_beam_search_of_the_file_is_that_of_transformers(small_lm, load, settings):
    small_lm.compile("greedy")
    lm, directory = load(**settings)
    lm.compile(samplers.of_settings(**lm.generation_defaults))
    found = text(lm)
    if "force_words_ids" in settings:  # transformers has it no more
        assert "5, 6" in str(found)
        assert {7, 8} & {*found}
        assert lm.sampler.repetition_penalty == 1.5
    else:
        assert found == reference(directory)
    assert found != text(small_lm)
    values = with_defaults({"seed": 3}, lm.generation_defaults)
    assert (values["temperature"], values["num_beams"]) == (0, settings["num_beams"])
    assert values["repetition_penalty"] == settings.get("repetition_penalty", 1)
    for given in ({"temperature": 0.7}, {"top_k": 5}, {"temperature": 0}):  # arguments win
        assert "num_beams" not in with_defaults(given, lm.generation_defaults)


def test_contrastive_search_of_the_file(load):
    lm, _ = load(penalty_alpha=0.4, no_repeat_ngram_size=3)
    assert lm.generation_defaults == {"penalty_alpha": 0.4}
    values = with_defaults({}, lm.generation_defaults)
    assert (values["penalty_alpha"], values["top_k"], values["temperature"]) == (0.4, 5, 0)
    assert with_defaults({"top_k": 8}, lm.generation_defaults)["penalty_alpha"] == 0.4
    sampler = samplers.of_settings(**lm.generation_defaults | {"top_k": 8, "min_p": 0.1})
    assert sampler.get_config() == samplers.ContrastiveSampler(8, 0.4).get_config()
    assert load(penalty_alpha=0.4, do_sample=True)[0].generation_defaults == {}
    with pytest.raises(InvalidArgumentError, match=r"^top_k of contrastive .* <= 32, not 40"):
        samplers.of_settings(penalty_alpha=0.4, top_k=40)
    with pytest.raises(InvalidArgumentError, match="penalty_alpha is part of contrastive search, "):
        samplers.of_settings(penalty_alpha=0.4, num_beams=2)
    with pytest.raises(InvalidArgumentError, match="length_penalty are part of beam search: give"):
        samplers.of_settings(length_penalty=2.0)


def test_a_wrong_rule_names_the_file(load):
    with pytest.raises(ConfigError, match=r"generation_config\.json: min_length must be .*'x'"):
        load(min_length="x")


def test_sampling_values_are_defaults_of_the_model(small_lm, load):
    assert small_lm.generation_defaults == {}
    given = {"temperature": 0.7, "top_k": 9, "top_p": 0.8, "min_p": 0.1, "typical_p": 0.9}
    given["repetition_penalty"] = 1.2
    lm, _ = load(**given, do_sample=True, max_time=None)
    assert lm.generation_defaults == given
    settings = with_defaults({"top_k": 0, "seed": 1}, lm.generation_defaults)
    assert settings == with_defaults(given | {"top_k": 0, "seed": 1})
    lm.compile()
    assert lm.sampler.get_config() == samplers.TopK().get_config()  # KerasHub's


def test_greedy_search_of_the_file_is_that_of_transformers(small_lm, load):
    small_lm.compile("greedy")
    lm, directory = load(do_sample=False, repetition_penalty=1.8, temperature=0.5, top_k=3)
    lm.compile(samplers.of_settings(**lm.generation_defaults | {"top_k": 5}))
    assert text(lm) == reference(directory) != text(small_lm)
    settings = with_defaults({}, lm.generation_defaults)
    assert (settings["temperature"], settings["repetition_penalty"]) == (0, 1.8)
    assert with_defaults({}, {"temperature": 0})["repetition_penalty"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0.0}, "sets top_p to 0.0, which is not a number > 0 and <= 1: it is ignored"),
        ({"top_k": -1}, "sets top_k to -1"),
        ({"temperature": "hot"}, "sets temperature to 'hot'"),
        ({"max_new_tokens": 0}, "sets max_new_tokens to 0"),
        (
            {"num_beams": 99},
            "sets num_beams: num_beams must be .*99; greedy search is used",
        ),
        ({"penalty_alpha": 2}, "sets penalty_alpha: alpha must be"),
    ],
)
def test_an_invalid_default_is_ignored_with_a_warning(settings, message, load):
    with pytest.warns(UserWarning, match=message):
        lm, _ = load(**settings)
    is_search = "num_beams" in settings or "penalty_alpha" in settings
    assert lm.generation_defaults == ({"temperature": 0.0} if is_search else {})
    assert lm.generation_limits == {}


def test_whole_floats_are_integers(load):
    lm, _ = load(top_k=50.0)
    assert lm.generation_defaults == {"top_k": 50}


def test_the_limit_of_new_tokens_is_that_of_transformers(load):
    lm, directory = load(max_new_tokens=3, eos_token_id=[])
    out = lm.generate(packed([PROMPT], 24), stop_token_ids=None, **lm.generation_limits)
    expected = reference(directory, max_length=None)
    assert out["token_ids"][0][: sum(out["padding_mask"][0])].tolist() == expected
    assert len(expected) == len(PROMPT) + 3


def test_biased_sequences_are_obeyed(small_lm, load):
    small_lm.compile("greedy")
    plain = text(small_lm)
    lm, directory = load(sequence_bias=[[[plain[6]], -50.0], [[3], 0.5], [plain[8:10], -50.0]])
    assert text(lm) == reference(directory) != plain


@pytest.mark.parametrize(
    ("rule", "off"),
    [
        ({"suppress_tokens": [*range(60)]}, {"suppress_tokens": ()}),
        ({"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 0}),
        ({"sequence_bias": [[[3], 50.0]]}, {"logit_bias": {}}),
        ({"sequence_bias": [[[3], 50.0]]}, {"sequence_bias": []}),
        ({"forced_eos_token_id": 9}, {"forced_eos_token_id": ()}),
    ],
    ids=str,
)
def test_a_neutral_argument_switches_a_rule_off(small_lm, load, rule, off):
    small_lm.compile("greedy")
    lm, _ = load(**rule)
    assert text(lm) != text(small_lm)
    lm.compile(samplers.Greedy(**off))
    assert text(lm) == text(small_lm)
    given = with_defaults({"min_length": None, "temperature": 0, **off}, lm.generation_defaults)
    assert given["min_length"] is None  # the model's
    lm.compile(samplers.get(samplers.serialize(lm.sampler)))
    assert text(lm) == text(small_lm)
    lm.compile("greedy", prompt_lookup_num_tokens=2)
    lm.sampler = samplers.Greedy(**off)
    assert text(lm) == text(small_lm)


def test_a_saved_model_keeps_its_settings(load, tmp_path):
    with pytest.warns(UserWarning, match="sets top_h, which"):
        lm, directory = load(
            do_sample=False, repetition_penalty=1.8, temperature=0.5, top_h=0.3, eos_token_id=[7],
            bad_words_ids=[[5, 6]], sequence_bias=[[[9], 1.5]], max_new_tokens=3,
        )  # fmt: skip
    assert saved(lm, tmp_path / "same") == {**read(directory), "bos_token_id": None}
    lm.token_rules = TokenRules(suppress_tokens=(4,), sequence_bias=(((8,), 2.0),))
    lm.generation_defaults, lm.generation_limits = {"temperature": 0.7}, {}
    others = {"top_h": 0.3, "bos_token_id": None, "eos_token_id": [7], "do_sample": True}
    rules = {"suppress_tokens": [4], "sequence_bias": [[[8], 2.0]]}
    assert saved(lm, tmp_path / "other") == {**others, **rules, "temperature": 0.7}
    lm.generation_defaults = {"temperature": 0, "top_k": 3}
    found = saved(lm, tmp_path / "greedy")
    assert "temperature" not in found
    assert (found["do_sample"], found["top_k"]) == (False, 3)
    lm.generation_defaults = {"num_beams": 3, "length_penalty": 2.0}
    found = saved(lm, tmp_path / "beams")
    assert (found["do_sample"], found["num_beams"], found["length_penalty"]) == (False, 3, 2.0)
    lm.token_rules, lm.generation_defaults = TokenRules(), {}
    assert saved(lm, tmp_path / "none") == {key: others[key] for key in others if key[0] != "d"}
    assert GenerationSettings().to_dict(TokenRules(), {}, {}) == {}  # no file


def saved(lm, directory):
    lm.save_to_preset(directory)
    return read(directory)


def read(directory):
    return json.loads((directory / "generation_config.json").read_text())


@pytest.mark.parametrize(
    ("limits", "length"),
    [({"max_length": 9}, 9), ({"max_new_tokens": 3}, 6), ({"max_length": 5000}, 40)],
    ids=str,
)
def test_limits_are_those_of_calls_without(lm, limits, length):
    """A limit of the call replaces them; packed ids have their own length."""
    lm = gw.GPT2CausalLM(lm.backbone, copy.copy(lm.preprocessor))
    lm.preprocessor.sequence_length = 40
    lm.compile("greedy")
    lm.generation_limits = limits
    prompt = "On"
    options: dict[str, Any] = {"stop_token_ids": None}
    start = len(lm.preprocessor.tokenizer(prompt)) + 1
    assert start == 3

    def new(**others):
        details = lm.generate(prompt, **options, **others, return_details=True)
        return len(details.token_ids)

    assert new() == length - start
    assert (new(max_new_tokens=20), new(max_length=30)) == (20, 30 - start)
    context = lm.backbone.config.n_positions
    with lm.stream(prompt, **options) as stream:
        text = "".join(stream)
    assert stream.stats.new_tokens == (length if length < 40 else context) - start
    if length < 40:
        assert text == lm.generate(prompt, strip_prompt=True, **options)
        assert [text] == list(gw.generate_batches(lm, [prompt], strip_prompt=True, **options))
    out = lm.generate(packed([PROMPT], 24), stop_token_ids=None)
    assert out["padding_mask"][0].sum() == 24


def test_limits_of_the_file(load):
    """As in transformers max_new_tokens comes before max_length."""
    assert load(max_length=9)[0].generation_limits == {"max_length": 9}
    lm, directory = load(max_length=9, max_new_tokens=3)
    assert lm.generation_limits == {"max_new_tokens": 3}
    assert len(reference(directory, max_length=None)) == len(PROMPT) + 3
    assert with_defaults({}, load(max_length=9)[0].generation_limits)["max_new_tokens"] is None
    assert with_defaults({"max_new_tokens": 4}, {"max_length": 9})["max_new_tokens"] == 4
