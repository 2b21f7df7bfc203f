"""What is recorded serves the next generation of its shape, and costs no live memory meanwhile."""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
from collections import Counter

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models import decoding, kept_runs
from gpt2_wgpu.webgpu import backends
from tests.memory import tiny
from tests.models.call_counts import FULL_SUBMITS, python_calls

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("counts calls of wgpu-native")]

PROMPTS = ["Once upon a time", "The wolf of the wood"]


@pytest.fixture
def fresh(lm, device):
    """A model without kept runs, on an empty pool; what it kept is freed afterwards."""
    gw.trim()
    model = copy.copy(lm)
    model.compile("greedy")
    yield model
    model.kept_runs.close()
    gw.trim()


@pytest.fixture
def made(device, monkeypatch):
    """Counts what wgpu is asked to make, by name."""
    monkeypatch.setattr(*FULL_SUBMITS)
    counts = Counter()

    def counted(name, method):
        def call(*args, **kwargs):
            counts[name] += 1
            return method(*args, **kwargs)

        return call

    for name in dir(device.gpu):
        # A submit makes an encoder, and a read-back asks by a layout whether the device is there.
        if name.startswith("create_") and name not in (
            "create_command_encoder",
            "create_bind_group_layout",
        ):
            monkeypatch.setattr(device.gpu, name, counted(name, getattr(device.gpu, name)))
    together = backends.bind_groups  # not one by one, by wgpu's method

    def groups(gpu, wanted):
        counts["create_bind_group"] += len(wanted)
        return together(gpu, wanted)

    monkeypatch.setattr(backends, "bind_groups", groups)
    return counts


def ids_of(lm, prompt=(1, 2, 3), length=20):
    return tiny.text_of(lm, [list(prompt)], length)


# --- the second generation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler", ["greedy", samplers.TopK(5, seed=3, repetition_penalty=1.2)], ids=repr
)
@pytest.mark.parametrize(
    "prompts", [PROMPTS[0], [PROMPTS[0], "A", PROMPTS[1]]], ids=["text", "list"]
)
def test_a_second_generation_makes_nothing(fresh, made, sampler, prompts):
    """No pipeline, no bind group, no buffer, and a fraction of the Python calls."""
    fresh.compile(sampler)
    first = python_calls(lambda: fresh.generate(prompts, 40, None))
    assert made["create_bind_group"] > 20
    made.clear()
    second = python_calls(lambda: fresh.generate(prompts, 40, None))
    assert not made
    assert second < first / 2


def test_a_stream_and_packed_ids_use_the_same_recording(fresh, made):
    (ids,) = fresh.preprocessor.encode_prompts([PROMPTS[0]])
    expected = fresh.generate(PROMPTS[0], tiny.CONTEXT, None, strip_prompt=True)
    made.clear()
    assert "".join(fresh.stream(PROMPTS[0], stop_token_ids=None)) == expected
    assert tiny.text_of(fresh, [ids], tiny.CONTEXT)[0][: len(ids)] == ids
    assert not made
    assert len(fresh.kept_runs) == 1


def test_steps_of_fewer_rows_are_kept_and_take_no_workspace(fresh, made):
    def generate(stops):
        fresh.sampler = samplers.TopK(50, seed=3)
        inputs = tiny.packed([[1, 2, 3], [4], [9, 8, 7, 6, 5], [100]], tiny.CONTEXT)
        return tiny.ids_of(fresh.generate(inputs, stop_token_ids=stops))

    stops = [*range(0, 257, 16)]
    generate([256] * len(stops))
    before = pooled()
    expected = generate(stops)
    ((_, parts),) = fresh.kept_runs._runs
    assert len(parts.steps) > 2
    assert pooled() - before < 2**14 * len(parts.steps)  # their parameters, and a row on its way
    made.clear()
    assert generate(stops) == expected
    assert made["create_bind_group"] == 0  # (a read-back in flight at the end is not pooled)


def test_the_embedded_model_needs_a_fraction_of_the_calls(device, made):
    with gw.GPT2CausalLM.from_preset("fairytales", dtype="float16") as lm:
        lm.compile("greedy")
        texts = []

        def generate():
            texts.append(lm.generate("Once upon a time", max_length=20))

        generate()
        made.clear()
        assert python_calls(generate) < 2500  # 11,300 without kept recordings
        assert not made
        assert texts[0] == texts[1]


# --- the same texts -------------------------------------------------------------------------------


def test_texts_are_those_of_fresh_recordings(fresh):
    """After any run: other prompts, lengths, batches, samplers with the same penalties."""
    cases = [
        ([[1, 2, 3]], 20), ([[7] * 9], 20), ([[4]], 20), ([[1, 2], [3]], 20), ([[1, 2, 3]], 33),
        ([[9, 8]], 20), ([[5], [6, 7, 8]], 18),
    ]  # fmt: skip
    for sampler in ("greedy", "top_k", "top_p"):
        seeded = samplers.get(
            {"class_name": sampler, "config": {"seed": 5}} if sampler != "greedy" else "greedy"
        )
        fresh.sampler = copy.deepcopy(seeded)
        found = [tiny.text_of(fresh, *case) for case in cases * 2]
        fresh.sampler = copy.deepcopy(seeded)
        expected = []
        for case in cases * 2:
            fresh.kept_runs.close()
            fresh.kept_runs = kept_runs.KeptRuns()
            expected.append(tiny.text_of(fresh, *case))
        assert found == expected


def test_counts_of_penalties_begin_anew(fresh):
    fresh.compile(samplers.Greedy(frequency_penalty=2.0, repetition_penalty=1.5))
    first = [ids_of(fresh), ids_of(fresh, (9, 9, 4))]
    assert [ids_of(fresh), ids_of(fresh, (9, 9, 4))] == first


def test_changed_penalties_and_stops_are_other_recordings(fresh):
    fresh.compile(samplers.Greedy())
    plain = ids_of(fresh)
    fresh.sampler.frequency_penalty = 2.0
    assert ids_of(fresh) != plain
    fresh.sampler.frequency_penalty = 0.0
    assert ids_of(fresh) == plain
    inputs = tiny.packed([[1, 2, 3]], 20)
    stop = plain[0][6]
    found = fresh.generate(inputs, stop_token_ids=[stop])
    assert sum(found["padding_mask"][0]) == plain[0].index(stop, 3) + 1


# --- memory ---------------------------------------------------------------------------------------


def test_nothing_counts_as_live_between_generations(fresh, device):
    before = tiny.counters(device)
    ids_of(fresh)
    assert tiny.counters(device) == before
    pooled = gw.memory().num_bytes_allocated_in_gpu - gw.memory().num_bytes_in_gpu
    assert pooled > 0
    ids_of(fresh)
    info = gw.memory()
    assert info.num_bytes_allocated_in_gpu - info.num_bytes_in_gpu == pooled


def pooled():
    info = gw.memory()
    return info.num_bytes_allocated_in_gpu - info.num_bytes_in_gpu


def test_trim_frees_kept_runs(fresh, made):
    expected = ids_of(fresh)
    gw.trim()
    assert pooled() == 0
    made.clear()
    assert ids_of(fresh) == expected
    assert made["create_bind_group"]


@pytest.mark.parametrize("end", ["compile", "dispose", "garbage"])
def test_the_end_of_a_model_frees_its_runs(device, end):
    gw.trim()
    lm = tiny.model(device)
    lm.generate("abc", 20, None)
    reserves = device.memory._reserves
    assert len(reserves) == 2  # of the step, and of the prompt's chunk
    if end == "compile":
        lm.compile("greedy")
        assert not reserves
        lm.generate("abc", 20, None)
        assert len(reserves) == 2  # of the step, and of the prompt's chunk
    if end != "garbage":
        lm.dispose()
    del lm
    if end == "garbage":
        gc.collect()
    gw.memory()
    assert not reserves
    gw.trim()


def test_a_model_goes_without_garbage_collection(device):
    """Its function refers to it, but not the other way round: `del` frees the weights at once."""
    lm = tiny.model(device)
    lm.generate("abc", 20, None)
    before = gw.memory().num_bytes
    gc.disable()
    try:
        del lm
        assert gw.memory().num_bytes < before
    finally:
        gc.enable()


def test_disposed_weights_are_not_used_again(device):
    lm = tiny.model(device)
    ids_of(lm)
    gw.dispose(lm.backbone.weights)
    with pytest.raises(gw.errors.DisposedTensorError):
        ids_of(lm)
    lm.dispose()


def test_other_work_does_not_take_the_buffers_of_a_kept_run(fresh, made):
    expected = ids_of(fresh)
    others = [gw.tensor([float("nan")] * size) for size in (16, 64, 200, 300, 900) * 9]
    made.clear()
    assert ids_of(fresh) == expected
    assert not made
    gw.dispose(others)


def test_lack_of_memory_frees_kept_runs(fresh, device):
    budget = gw.memory().budget
    expected = ids_of(fresh)
    kept = pooled()
    try:
        gw.set_memory_budget(gw.memory().num_bytes_in_gpu + kept)
        assert pooled() == kept
        x = gw.tensor([1.0] * (kept // 4 - 512))
        assert pooled() == 0
        with pytest.raises(OutOfGPUMemoryError):
            ids_of(fresh)
        x.dispose()
        assert ids_of(fresh) == expected
    finally:
        gw.set_memory_budget(budget)


def test_the_pools_limit_holds_for_kept_runs(fresh, device, monkeypatch):
    ids_of(fresh)
    limit = pooled() + 1000
    gw.trim()
    monkeypatch.setattr(device.memory, "pool_limit", limit)
    for length in (12, 20, 36):
        ids_of(fresh, length=length)
        assert pooled() <= limit
    monkeypatch.setattr(device.memory, "pool_limit", 100)
    ids_of(fresh)
    assert pooled() <= 100


def test_few_runs_are_kept(fresh, device):
    for length in (4, 20, 36):
        for rows in (1, 2, 3):
            tiny.text_of(fresh, [[1, 2]] * rows, length)
    assert len(fresh.kept_runs) == kept_runs.MAX_RUNS == len(device.memory._reserves) // 2


# --- several at once ------------------------------------------------------------------------------


def test_two_generations_at_once_have_a_run_each(fresh):
    expected = [fresh.generate(prompt, 40, None) for prompt in PROMPTS]

    async def together():
        return await asyncio.gather(
            *(fresh.generate_async(prompt, 40, None) for prompt in PROMPTS * 2)
        )

    assert asyncio.run(together()) == expected * 2
    found = {}

    def work(index):
        found[index] = [fresh.generate(PROMPTS[index % 2], 40, None) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: [expected[index % 2]] * 5 for index in range(3)}


def test_a_stream_that_is_left_gives_its_run_back(fresh, made):
    expected = fresh.generate(PROMPTS[0], tiny.CONTEXT, None)
    with fresh.stream(PROMPTS[0], stop_token_ids=None) as stream:
        next(stream)
        next(stream)
    made.clear()
    assert fresh.generate(PROMPTS[0], tiny.CONTEXT, None) == expected
    assert made["create_bind_group"] == 0


def test_threads_that_close_at_once_give_the_run_back_once(fresh):
    """The run is taken from the generation while its lock is held."""

    class Watched(decoding.Generation):
        @property
        def _run(self):
            taken.append(self._lock.locked())
            return self.__dict__["_run"]

        @_run.setter
        def _run(self, run):
            self.__dict__["_run"] = run

    taken = []
    generation = Watched(fresh, [[1, 2]], [20], fresh.sampler.next_options(), [])
    gw.webgpu.sync(generation.advance(), "")
    taken.clear()
    generation.close()
    generation.close()
    assert taken == [True, True]
    assert len(fresh.kept_runs) == 1


def test_compile_during_a_stream_keeps_nothing_of_it(fresh, device):
    stream = fresh.stream(PROMPTS[0], max_new_tokens=20, stop_token_ids=None)
    next(stream)
    fresh.compile("greedy")
    list(stream)
    assert not fresh.kept_runs
    assert not device.memory._reserves


def test_a_failed_generation_is_not_kept(fresh, device, monkeypatch):
    stream = fresh.stream(PROMPTS[0], max_new_tokens=20, stop_token_ids=None)
    next(stream)

    def failing(*args):
        raise KeyError("by the test")

    monkeypatch.setattr("gpt2_wgpu.models.decoding.Generation._collect", failing)
    with pytest.raises(KeyError):
        list(stream)
    monkeypatch.undo()
    assert not fresh.kept_runs


def test_a_replaced_step_is_recorded_for_each_generation(fresh, made):
    original = fresh.call_with_cache
    fresh.call_with_cache = lambda *args: original(*args)
    expected = ids_of(fresh)
    assert not fresh.kept_runs
    del fresh.call_with_cache
    assert ids_of(fresh) == expected
    assert len(fresh.kept_runs) == 1
