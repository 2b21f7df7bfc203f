"""Callable for Ray Data, without Ray: rows, errors, memory, adapter."""

from __future__ import annotations

import gc
import pickle
import random
import warnings

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import (
    ContextLengthError,
    CopyError,
    InvalidArgumentError,
    NoAdapterError,
    NumericalError,
    OutOfGPUMemoryError,
    PresetError,
    TokenizerError,
)
from gpt2_wgpu.integrations import ray as integration
from gpt2_wgpu.integrations.ray import GPT2Generator
from gpt2_wgpu.integrations.visible_gpus import assigned_adapter
from gpt2_wgpu.webgpu import AdapterInfo

PROMPTS = [
    "Once upon a time",
    "",
    "The king had three sons, and the youngest of them was called Dummling,",
    "A",
    "The wolf said to the",
    "There was once a poor woodcutter who lived with his wife and " * 3,
    "Once upon a time",
    "Der König",
    "In the forest",
]
ADDED = ["generated_text", "finish_reason", "prompt_tokens", "new_tokens", "error"]


@pytest.fixture
def make(checkpoint):
    """A generator on any adapter."""

    def made(**arguments):
        return GPT2Generator(
            **{"preset": checkpoint, "dtype": "float16", "adapter": None} | arguments
        )

    return made


@pytest.fixture(scope="module")
def generator(checkpoint):
    """Draws at random, four rows at once, up to 12 new tokens."""
    with GPT2Generator(
        checkpoint,
        dtype="float16",
        sampler=samplers.TopK(k=20, seed=3),
        rows_at_once=4,
        max_new_tokens=12,
        max_new_tokens_column="limit",
        adapter=None,
    ) as made:
        yield made


def batch_of(prompts, limit=12):
    return {
        "prompt": np.array(prompts, dtype=object),
        "limit": np.full(len(prompts), limit),
        "id": np.arange(len(prompts)),
    }


def rows_of(columns):
    return list(zip(*(list(columns[name]) for name in ["id", *ADDED]), strict=True))


def test_columns_stay_and_new_ones_come(generator):
    batch = batch_of(PROMPTS)
    result = generator(batch)
    assert list(result) == ["prompt", "limit", "id", *ADDED]
    assert all(result[name] is batch[name] for name in batch)
    assert set(result["error"]) == {""}
    assert set(result["finish_reason"]) <= {"stop", "length", "context"}
    assert all(isinstance(text, str) and text for text in result["generated_text"])
    assert result["new_tokens"].dtype == result["prompt_tokens"].dtype == np.int64
    assert result["new_tokens"].max() == 12
    assert result["prompt_tokens"][1] == 1  # the start token alone


def test_a_row_does_not_depend_on_its_batch(generator):
    expected = rows_of(generator(batch_of(PROMPTS)))
    assert len({row[1] for row in expected}) == len(PROMPTS) - 1  # one prompt is there twice
    order = list(range(len(PROMPTS)))
    for size in (1, 2, 5, 7):
        random.Random(size).shuffle(order)
        found = []
        for first in range(0, len(order), size):
            part = order[first : first + size]
            batch = {name: values[part] for name, values in batch_of(PROMPTS).items()}
            found += rows_of(generator(batch))
        assert sorted(found) == expected


def test_without_a_column_the_sampler_s_seed_decides(make):
    texts = []
    for seed in (None, 0, 1):
        sampler = samplers.Random(seed=seed)
        with make(sampler=sampler, max_new_tokens=8, rows_at_once=2) as generator:
            texts.append(list(generator({"prompt": ["The wolf", "A"]})["generated_text"]))
    assert texts[0] == texts[1] != texts[2]


def test_a_seed_gives_what_a_new_sampler_gives_the_prompt_alone(make, checkpoint):
    seeds = [5, 2**64 - 1, 5, 0]
    with make(
        sampler={"class_name": "TopPSampler", "config": {"p": 0.9, "seed": 1}},
        seed_column="seed",
        max_new_tokens=8,
        rows_at_once=3,
    ) as generator:
        batch = {"prompt": ["The wolf"] * 4, "seed": np.array(seeds, dtype=np.uint64)}
        found = generator(batch)["generated_text"]
        with gw.GPT2CausalLM.from_preset(checkpoint, dtype="float16") as lm:
            for text, seed in zip(found, seeds, strict=True):
                lm.compile(sampler=samplers.TopP(p=0.9, seed=seed))
                assert "".join(lm.stream("The wolf", max_new_tokens=8)) == text
        assert len(set(found)) == 3
        wrong = generator({"prompt": ["A", "B"], "seed": [-1, 2.5]})
    assert wrong["error"][0].startswith("InvalidArgumentError: seed must be an integer")
    assert "not 2.5" in wrong["error"][1]


def test_greedy_rows_equal_the_model_and_stop_where_told(make, checkpoint):
    limits = [3, 30, 9]
    with gw.GPT2CausalLM.from_preset(checkpoint, dtype="float16") as lm:
        lm.compile(sampler="greedy")
        streams = [lm.stream(p, max_new_tokens=n) for p, n in zip(PROMPTS, limits, strict=False)]
        texts = ["".join(stream) for stream in streams]
        stop = streams[1].stats.token_ids[4]
        first = streams[1].stats.token_ids.index(stop)
    arguments = {"sampler": "greedy", "max_new_tokens_column": "n"}
    batch = {"text": PROMPTS[:3], "n": limits}
    with make(**arguments, prompt_column="text") as generator:
        assert list(generator(batch)["generated_text"]) == texts
    with make(**arguments, prompt_column="text", stop_token_ids=[stop]) as generator:
        result = generator(batch)
    assert result["finish_reason"][1] == "stop"
    assert result["new_tokens"][1] == first + 1
    assert result["finish_reason"][0] in ("stop", "length")


def test_a_faulty_row_tells_so_and_harms_no_other(generator):
    good = generator(batch_of(PROMPTS[:2]))
    bad = [None, float("nan"), 7, b"bytes", "\ud800", "word " * 600]
    batch = batch_of([PROMPTS[0], *bad, PROMPTS[1], "A", "A"])
    batch["limit"] = np.array([12] * 8 + [0, -5], dtype=object)
    result = generator(batch)
    assert [result["generated_text"][i] for i in (0, 7)] == list(good["generated_text"])
    faulty = [1, 2, 3, 4, 5, 6, 8, 9]
    assert [bool(error) for error in result["error"]] == [i in faulty for i in range(10)]
    for index in faulty:
        assert result["finish_reason"][index] == "error"
        assert result["generated_text"][index] == ""
        assert result["new_tokens"][index] == 0
        assert "\n" not in result["error"][index]
    assert result["error"][1] == "InvalidArgumentError: a prompt must be a str, not null"
    assert result["error"][2] == result["error"][1]
    assert result["error"][6].startswith("ContextLengthError: the prompt has 6")
    assert "limit must be an integer >= 1" in result["error"][8]
    assert result["prompt_tokens"][6] > 600


def test_a_long_prompt_gets_what_the_context_holds(generator):
    prompt = "word " * 52
    tokens = generator(batch_of([prompt]))["prompt_tokens"][0]
    room = 64 - tokens
    assert 0 < room < 12
    result = generator(batch_of([prompt]))
    assert result["new_tokens"][0] == room
    assert result["finish_reason"][0] == "context"


def test_faults_are_raised_where_that_is_wished(make):
    with make(on_error="raise", max_new_tokens=1) as generator:
        with pytest.raises(InvalidArgumentError, match="row 1 of the batch: a prompt must be"):
            generator({"prompt": ["A", 3]})
        with pytest.raises(ContextLengthError, match="row 0 of the batch: the prompt has"):
            generator({"prompt": ["word " * 600]})
        with pytest.raises(TokenizerError, match="row 0"):
            generator({"prompt": ["\udfff"]})
        assert generator({"prompt": ["A"]})["error"][0] == ""


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([{"prompt": "A"}], "a batch must be a dict of columns, not list"),
        ({"text": ["A"], "limit": [1]}, r"no column 'prompt'; it has \['text', 'limit'\]"),
        ({"prompt": ["A"]}, "no column 'limit'"),
        ({"prompt": ["A"], "limit": [1], "error": [""]}, "a column 'error' already: drop it"),
    ],
)
def test_a_wrong_batch_is_refused(generator, batch, message):
    with pytest.raises(InvalidArgumentError, match=message):
        generator(batch)


def test_an_empty_batch_and_a_prefix(generator, make):
    assert [len(values) for values in generator(batch_of([])).values()] == [0] * 8
    with make(prefix="again_", max_new_tokens=1) as other:
        result = other({"prompt": ["A"], "error": [""]})
    assert list(result)[2:] == [f"again_{name}" for name in ADDED]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"preset": "gpt9"}, PresetError, "unknown model 'gpt9'"),
        ({"prompt_column": ""}, InvalidArgumentError, "prompt_column must be the name"),
        ({"prompt_column": None}, InvalidArgumentError, "prompt_column must be the name"),
        ({"seed_column": 3}, InvalidArgumentError, "seed_column must be the name"),
        ({"max_new_tokens": 0}, InvalidArgumentError, "max_new_tokens must be an integer"),
        ({"rows_at_once": 0}, InvalidArgumentError, "rows_at_once must be an integer"),
        ({"sampler": "best"}, InvalidArgumentError, "unknown sampler 'best'"),
        ({"on_error": "ignore"}, InvalidArgumentError, "on_error must be 'record' or 'raise'"),
        ({"prefix": None}, InvalidArgumentError, "prefix must be a str"),
        ({"stop_token_ids": "end"}, InvalidArgumentError, "stop_token_ids must be"),
        ({"memory_budget": 0}, InvalidArgumentError, "the budget must be"),
        ({"memory_budget": 1000}, OutOfGPUMemoryError, "1,000"),
        ({"dtype": "int3"}, InvalidArgumentError, "int3"),
        ({"adapter": 99}, NoAdapterError, "no adapter 99"),
    ],
)
def test_wrong_arguments_are_refused(make, arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        make(**arguments)
    assert "\n" not in str(raised.value)


def test_what_does_not_fit_is_tried_with_fewer_rows(generator, make):
    expected = rows_of(generator(batch_of(PROMPTS)))
    with make(
        sampler=samplers.TopK(k=20, seed=3),
        rows_at_once=64,
        max_new_tokens=12,
        memory_budget=1 << 20,
    ) as narrow:
        with pytest.warns(UserWarning, match=r"going on with rows_at_once=\d+"):
            found = rows_of(narrow(batch_of(PROMPTS)))
        assert found == expected
        assert 1 <= narrow.rows_at_once < 64
        narrow.rows_at_once = 1
        gw.set_memory_budget(1, narrow._device)
        with pytest.raises(OutOfGPUMemoryError):
            narrow(batch_of(PROMPTS))


def test_logits_that_are_not_finite_fail_their_row_only(generator, monkeypatch):
    expected = rows_of(generator(batch_of(PROMPTS)))
    honest = integration.Generation
    (poison,) = generator._preprocessor.encode_prompts([PROMPTS[4]])

    class Overflowing(honest):  # type: ignore[misc, valid-type]
        async def advance(self):
            if poison in self._rows:
                raise NumericalError("the logits are not finite")
            return await super().advance()

    monkeypatch.setattr(integration, "Generation", Overflowing)
    found = rows_of(generator(batch_of(PROMPTS)))
    assert found[4][5] == "NumericalError: the logits are not finite"
    assert found[:4] + found[5:] == expected[:4] + expected[5:]


def test_nothing_stays_on_the_device(generator):
    generator(batch_of(PROMPTS))
    before = gw.memory(generator._device)
    generator(batch_of([*PROMPTS, None]))
    after = gw.memory(generator._device)
    assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)


@pytest.mark.parametrize("drop", ["close", "forget"])
def test_the_end_frees_everything(make, drop):
    generator = make(max_new_tokens=1)
    generator({"prompt": ["A"]})
    device = generator._device
    if drop == "close":
        generator.close()
        generator.close()
    else:
        del generator
        gc.collect()
    info = gw.memory(device)
    assert not device.is_open
    assert (info.num_tensors, info.num_bytes, info.num_bytes_allocated_in_gpu) == (0, 0, 0)


def test_samplers_travel_to_other_processes():
    for sampler in (samplers.TopK(k=7, seed=4), samplers.Greedy(), samplers.TopP(p=0.3, seed=9)):
        copy = pickle.loads(pickle.dumps(sampler))
        assert repr(copy) == repr(sampler)
        assert copy.next_options() == sampler.next_options()


# --- adapters -----------------------------------------------------------------------------------


def adapters(*names):
    vendors = {"nvidia": 0x10DE, "amd": 0x1002, "intel": 0x8086, "llvmpipe": 0x10005}
    return [
        AdapterInfo(name, "", backend or "Vulkan", "", "GPU", vendors[name])
        for name, _, backend in (name.partition(":") for name in names)
    ]


@pytest.mark.parametrize(
    ("environment", "there", "expected"),
    [
        ({}, ["nvidia"], None),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["nvidia"], None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ["nvidia"], None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, ["nvidia"], 0),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["intel", "nvidia", "llvmpipe", "nvidia"], 3),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, ["nvidia", "nvidia"], 1),
        ({"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "0"}, ["nvidia", "amd"], 1),
        ({"ZE_AFFINITY_MASK": "0"}, ["nvidia", "intel"], 1),
        (
            {"CUDA_VISIBLE_DEVICES": "1"},
            ["nvidia:D3D12", "nvidia:Vulkan", "nvidia:D3D12", "nvidia:Vulkan"],
            2,
        ),
    ],
)
def test_each_gpu_has_its_adapter(environment, there, expected):
    assert assigned_adapter(environment, adapters(*there)) == expected


@pytest.mark.parametrize("given", ["2", "GPU-8f1c", "MIG-GPU-1/2/3"])
def test_a_gpu_without_an_adapter_is_never_replaced_by_another(given):
    with pytest.raises(NoAdapterError, match=r"wgpu finds 2 of that vendor .*adapter="):
        assigned_adapter({"CUDA_VISIBLE_DEVICES": given}, adapters("nvidia", "amd", "nvidia"))


def test_a_worker_with_a_gpu_does_not_compute_on_the_cpu_in_silence(make, monkeypatch):
    software = gw.adapters()[0].is_software
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "77")
    with pytest.raises(NoAdapterError, match="CUDA_VISIBLE_DEVICES=77"):
        make(adapter="auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(adapter="auto").close()
    assert [str(w.message) for w in caught if "no GPU" in str(w.message)] != [] or not software


def test_an_object_is_not_pickled_but_its_class_is(generator):
    with pytest.raises(CopyError, match=r"pass the class, which each worker calls"):
        pickle.dumps(generator)
    assert pickle.loads(pickle.dumps(GPT2Generator)) is GPT2Generator
