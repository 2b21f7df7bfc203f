"""Samplers: names, arguments, seeds. Drawn tokens are tested with the kernel."""

from __future__ import annotations

import copy
import inspect
import json
from typing import Any

import numpy as np
import pytest

from gpt2_wgpu import samplers
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.nn import Penalties
from gpt2_wgpu.samplers.rule_arguments import RULE_ARGUMENTS
from gpt2_wgpu.sampling_parameters import (
    COMMON_PARAMETERS,
    PARAMETERS,
    RULE_PARAMETERS,
    SAMPLER_PARAMETERS,
    with_defaults,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("greedy", samplers.GreedySampler),
        ("random", samplers.RandomSampler),
        ("top_k", samplers.TopKSampler),
        ("top_p", samplers.TopPSampler),
        ("min_p", samplers.MinPSampler),
        ("typical", samplers.TypicalSampler),
    ],
)
def test_names_and_configs_round_trip(name, kind):
    sampler = samplers.get(name)
    assert type(sampler) is kind
    again = samplers.get(samplers.serialize(sampler))
    assert type(again) is kind
    assert again.get_config() == sampler.get_config()
    assert samplers.get(sampler) is sampler


def test_keras_hubs_class_names_are_understood():
    sampler = samplers.get({"class_name": "TopKSampler", "config": {"k": 3}})
    assert isinstance(sampler, samplers.TopKSampler)
    assert sampler.k == 3
    assert type(samplers.get({"class_name": "GreedySampler"})) is samplers.GreedySampler


def test_defaults_are_those_of_keras_hub():
    assert samplers.TopK().get_config() == {"k": 5, "temperature": 1.0, "seed": None}
    assert samplers.TopP().get_config() == {"p": 0.1, "k": None, "temperature": 1.0, "seed": None}
    assert repr(samplers.Greedy()) == "GreedySampler()"


@pytest.mark.parametrize("name", ["nope", "Greedy", "", None, 3, {"class_name": "bean"}])
def test_unknown_samplers_are_refused_by_name(name):
    with pytest.raises(InvalidArgumentError, match="unknown sampler"):
        samplers.get(name)


def test_a_seed_repeats_the_series_and_a_series_does_not_repeat():
    series = [[s.next_options().seed for _ in range(50)] for s in (samplers.TopK(seed=7),) * 1]
    again = samplers.TopK(seed=7)
    assert series[0] == [again.next_options().seed for _ in range(50)]
    other = samplers.TopK(seed=8)
    drawn = series[0] + [other.next_options().seed for _ in range(50)]
    assert len(set(drawn)) == 100
    assert all(0 <= seed < 2**64 for seed in drawn)


def test_an_assigned_seed_begins_its_series():
    sampler = samplers.RandomSampler(seed=1)
    first = sampler.next_seed()
    sampler.seed = 5
    assert sampler.next_seed() == samplers.RandomSampler(seed=5).next_seed() != first
    assert sampler.get_config()["seed"] == copy.copy(sampler).seed == 5
    with pytest.raises(InvalidArgumentError, match="seed must be an integer >= 0"):
        sampler.seed = -1
    sampler.seed = None
    assert sampler.next_seed() != samplers.RandomSampler().next_seed()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (samplers.MinPSampler, 0),
        (samplers.MinPSampler, 0.5),
        (samplers.TypicalSampler, 0.5),
        (samplers.TypicalSampler, 1),
    ],
)
def test_a_config_of_numpy_scalars_is_json(kind, value):
    text = json.dumps(kind(np.float32(value)).get_config())
    assert kind.from_config(json.loads(text)).get_config() == kind(value).get_config()


def test_without_a_seed_each_sampler_differs():
    seeds = {samplers.Random().next_options().seed for _ in range(20)}
    assert len(seeds) == 20


def test_changed_attributes_take_effect():
    sampler = samplers.TopP(p=0.5, k=9, seed=1, temperature=0.7)
    sampler.temperature, sampler.p, sampler.k = 0, 0.25, None
    options = sampler.next_options()
    assert (options.temperature, options.top_p, options.top_k) == (0.0, 0.25, 0)


@pytest.mark.parametrize(
    ("sampler", "name", "value"),
    [
        (samplers.TopP(), "p", 1.5), (samplers.TopP(), "p", 0), (samplers.TopP(), "k", 0),
        (samplers.TopP(), "k", 2**31), (samplers.TopK(), "k", 0), (samplers.TopK(), "k", 2**31),
        (samplers.Random(), "repetition_penalty", 0), (samplers.Random(), "presence_penalty", 1e4),
    ],
)  # fmt: skip
def test_changed_attributes_are_checked(sampler, name, value):
    setattr(sampler, name, value)
    with pytest.raises(InvalidArgumentError, match=rf"{name} must be .*, not {value}"):
        sampler.next_options()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: samplers.Random(temperature=-0.1),
            "temperature must be a number >= 0 .* not -0.1",
        ),
        (lambda: samplers.Random(temperature=float("nan")), "temperature .* not nan"),
        (lambda: samplers.Random(temperature=float("inf")), "temperature .* not inf"),
        (lambda: samplers.Random(temperature=1e300), r"temperature .*1e\+30, not 1e\+300"),
        (lambda: samplers.Random(temperature="1"), "temperature .* not '1'"),
        (lambda: samplers.Random(temperature=True), "temperature .* not True"),
        (lambda: samplers.TopK(k=0), "k must be an integer >= 1 and <= .*, not 0"),
        (lambda: samplers.TopK(k=2.0), "k must be an integer .* not 2.0"),
        (lambda: samplers.TopP(p=0), "p must be a number > 0 and <= 1, not 0"),
        (lambda: samplers.TopP(p=1.5), "p must be a number > 0 and <= 1, not 1.5"),
        (lambda: samplers.TopP(k=-1), "k must be an integer"),
        (lambda: samplers.Random(seed=-1), "seed must be an integer >= 0"),
        (lambda: samplers.Random(seed=2**64), "seed must be an integer"),
        (lambda: samplers.Random(seed=1.5), "seed must be an integer"),
    ],
)
def test_bad_arguments_name_argument_bound_and_value(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_min_p_and_typical_p_are_arguments_of_every_sampler():
    options = samplers.TopP(0.9, seed=1, min_p=0.05, typical_p=0.8).next_options()
    assert (options.top_p, options.min_p, options.typical_p) == (0.9, 0.05, 0.8)
    assert samplers.MinP(0.2, typical_p=0.5).next_options().min_p == 0.2
    assert samplers.Typical().get_config()["typical_p"] == 0.9
    with pytest.raises(InvalidArgumentError, match=r"min_p must be .*, not 1.5"):
        samplers.MinP(1.5)
    with pytest.raises(InvalidArgumentError, match=r"typical_p must be .*, not 0"):
        samplers.Greedy(typical_p=0)


def test_numpy_numbers_are_welcome():
    assert samplers.TopK(k=np.int64(3), seed=np.uint32(5)).next_options().top_k == 3
    assert samplers.Random(temperature=np.float32(0.5)).temperature == 0.5


@pytest.mark.parametrize("kind", [samplers.Greedy, samplers.Random, samplers.TopK, samplers.TopP])
def test_penalties_of_every_sampler(kind):
    sampler = kind(repetition_penalty=1.2, presence_penalty=-0.5, frequency_penalty=0.25)
    assert sampler.next_options().penalties == Penalties(1.2, -0.5, 0.25)
    assert samplers.get(samplers.serialize(sampler)).penalties() == sampler.penalties()
    assert not kind().next_options().penalties.any
    assert "penalty" not in repr(kind())
    sampler.repetition_penalty = 1.5  # as every attribute: from the next generation on
    assert sampler.next_options().penalties.repetition == 1.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 0),
        ("repetition_penalty", -1.0),
        ("presence_penalty", float("nan")),
        ("frequency_penalty", "much"),
    ],
)
def test_penalties_out_of_range(name, value):
    with pytest.raises(InvalidArgumentError, match=name):
        samplers.TopK(**{name: value})


@pytest.mark.parametrize(
    ("kind", "positional", "expected"),
    [  # KerasHub 0.32: the order of its constructors' arguments
        (samplers.Random, (42,), {"seed": 42, "temperature": 1.0}),
        (samplers.TopK, (3, 42), {"k": 3, "seed": 42, "temperature": 1.0}),
        (samplers.TopP, (0.5, 3, 42), {"p": 0.5, "k": 3, "seed": 42, "temperature": 1.0}),
    ],
)
def test_positional_arguments_are_keras_hubs(kind, positional, expected):
    assert kind(*positional).get_config() == expected


@pytest.mark.parametrize("kind", [samplers.Greedy, samplers.Random, samplers.TopK, samplers.TopP])
def test_every_sampler_takes_a_temperature(kind):
    sampler = kind(temperature=0.5)
    assert sampler.get_config()["temperature"] == 0.5
    assert samplers.get(samplers.serialize(sampler)).temperature == 0.5
    with pytest.raises(InvalidArgumentError, match="temperature"):
        kind(temperature=-1)


def test_a_temperature_leaves_greedy_search_greedy():
    assert samplers.Greedy(temperature=0.5).next_options().temperature == 0


@pytest.mark.parametrize(
    "identifier",
    [
        {"class_name": ["TopKSampler"]},
        {"class_name": "TopKSampler", "config": [3]},
        {"class_name": "TopKSampler", "config": {"nope": 1}},
        {"class_name": "TopKSampler", "config": {1: 1}},
        {"class_name": None},
        ["top_k"],
        samplers.TopK,
        b"top_k",
    ],
)
def test_what_makes_no_sampler_is_refused_in_our_words(identifier):
    with pytest.raises(InvalidArgumentError, match=r"[sS]ampler"):
        samplers.get(identifier)


def test_a_config_of_none_is_an_empty_one():
    assert samplers.get({"class_name": "top_k", "config": None}).get_config()["k"] == 5


@pytest.mark.parametrize("value", [np.zeros(2), [1], 1 + 2j, 10**400, np.float64("nan"), object()])
def test_odd_values_are_refused_in_our_words(value):
    kind: Any
    for name, kind in (("temperature", samplers.Random), ("p", samplers.TopP)):
        with pytest.raises(InvalidArgumentError, match=name):
            kind(**{name: value})
    for name, kind in (("seed", samplers.Random), ("k", samplers.TopK)):
        with pytest.raises(InvalidArgumentError, match=name):
            kind(**{name: value})


def test_a_sampler_takes_the_common_parameters_of_the_table():
    arguments = inspect.signature(samplers.Sampler).parameters.values()
    keywords = {each.name: each.default for each in arguments if each.kind == each.KEYWORD_ONLY}
    others = [name for name in keywords if name not in {*RULE_ARGUMENTS, "force_words_ids"}]
    numbers = {name: keywords.pop(name) for name in others}
    rules = {each.name: None for each in RULE_PARAMETERS}  # None: the model's
    assert numbers == {each.name: each.neutral for each in COMMON_PARAMETERS} | rules
    assert keywords.keys() == {*RULE_ARGUMENTS, "force_words_ids"}


def test_defaults_and_neutral_values_are_in_range():
    for each in PARAMETERS:
        for value in (each.default, each.neutral):
            assert value is None or each.range.find(value) == value, each.name


def test_settings_of_every_parameter_make_a_sampler():
    settings = with_defaults({"seed": 3, "top_k": None})
    assert settings["top_k"] == 40
    given = {each.name: settings[each.name] for each in SAMPLER_PARAMETERS}
    config = samplers.of_settings(**given).get_config()
    changed = {each.name for each in COMMON_PARAMETERS if each.default != each.neutral}
    assert config.keys() == {"p", "k", "temperature", "seed"} | changed
    greedy = with_defaults({"temperature": 0})
    others = {*COMMON_PARAMETERS} - {*RULE_PARAMETERS}
    assert all(greedy[each.name] == each.neutral for each in others)
    assert all(greedy[each.name] is None for each in RULE_PARAMETERS)


def test_deserialize_is_the_inverse_of_serialize() -> None:
    sampler = samplers.TopK(k=7, seed=2)
    again = samplers.deserialize(samplers.serialize(sampler))
    assert again.get_config() == sampler.get_config()
