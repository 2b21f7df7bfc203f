"""`generate_batches`: many prompts, sorted into batches, with texts in order."""

from __future__ import annotations

import asyncio
import itertools
from array import array
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError, OutOfGPUMemoryError

pytestmark = pytest.mark.usefixtures("no_leak")

PROMPTS = ["Once " + "and " * (5 * n % 7) + "the" for n in range(21)]


@pytest.fixture
def lm(tales):
    """The embedded model, greedy, with recordings of its own."""
    lm = gw.GPT2CausalLM(tales.backbone, tales.preprocessor)
    lm.compile("greedy")
    yield lm
    lm.kept_runs.close()


def test_texts_are_those_of_single_prompts_in_order(lm):
    expected = [lm.generate(prompt, max_new_tokens=4, strip_prompt=True) for prompt in PROMPTS]
    sizes = []
    texts = gw.generate_batches(
        lm, iter(PROMPTS), strip_prompt=True, batch_size=4, on_progress=sizes.append,
        max_new_tokens=4,
    )  # fmt: skip
    assert list(texts) == expected
    assert sizes == [4, 4, 4, 4, 4, 1]


def test_prompts_are_read_lazily(lm):
    endless = (f"Once {n}" for n in itertools.count())
    texts = gw.generate_batches(lm, endless, batch_size=1, max_new_tokens=1)
    assert next(texts).startswith("Once 0")
    texts.close()


def test_async(lm):
    async def run():
        return [text async for text in gw.generate_batches_async(lm, PROMPTS[:3], 8)]

    assert asyncio.run(run()) == lm.generate(PROMPTS[:3], 8)


def test_a_seeded_text_depends_on_the_number_of_its_prompt_only(lm):
    lm.compile("random")
    prompts = [*PROMPTS[:6], PROMPTS[0]]
    alone = [
        lm.generate(prompt, max_new_tokens=4, seed=5 + number)
        for number, prompt in enumerate(prompts)
    ]
    assert alone[0] != alone[6]
    for size in (4, 7):
        texts = gw.generate_batches(lm, prompts, batch_size=size, seed=5, max_new_tokens=4)
        assert list(texts) == alone
    later = gw.generate_batches(lm, prompts[2:], batch_size=4, seed=5, first=2, max_new_tokens=4)
    assert list(later) == alone[2:]


def test_seeds_of_rows(lm):
    class InPython(gw.samplers.RandomSampler):
        def get_next_token(self, probabilities):
            return [1] * probabilities.shape[0]

    lm.compile("top_k")
    texts = lm.generate(["Once", "The king"], 8, seed=[3, 4])
    assert texts == [lm.generate("Once", 8, seed=3), lm.generate("The king", 8, seed=4)]
    assert lm.generate(["Once", "The king"], 8, seed=array("Q", [3, 4])) == texts
    greedy = lm.generate(["Once"], 8, sampler="greedy", seed=[3])
    assert greedy == [lm.generate("Once", 8, sampler="greedy")]
    with pytest.raises(InvalidArgumentError, match="seed has 1 entries for 2 rows"):
        lm.generate(["Once", "The king"], 8, seed=[3])
    for sampler in ("beam", InPython()):
        with pytest.raises(InvalidArgumentError, match="takes no seeds of rows"):
            lm.generate(["Once"], 8, sampler=sampler, seed=[3])
    with pytest.raises(InvalidArgumentError, match="seed"):
        lm.generate(["Once"], 8, seed=[-1])


def test_a_batch_is_halved_until_it_fits(lm, monkeypatch):
    sizes = []
    generate = lm.generate_async

    async def limited(prompts, *args, **options):
        sizes.append(len(prompts))
        if len(prompts) > limit:
            raise OutOfGPUMemoryError("full")
        return await generate(prompts, *args, **options)

    limit = 3
    monkeypatch.setattr(lm, "generate_async", limited)
    with pytest.warns(UserWarning, match="8 rows exceed the GPU memory: going on with 4 at once"):
        texts = list(gw.generate_batches(lm, PROMPTS[:9], batch_size=8, max_new_tokens=1))
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert [text.split()[0] for text in texts] == ["Once"] * 9
    limit = 0
    with pytest.raises(OutOfGPUMemoryError):
        list(gw.generate_batches(lm, PROMPTS[:1], max_new_tokens=1))


def test_invalid_arguments(lm):
    long = "a " * 600
    with pytest.raises(ContextLengthError, match=r"prompt 8 has \d+ tokens .* only 512 fit"):
        list(gw.generate_batches(lm, ["a", long], first=7, max_new_tokens=1))
    for prompts in ("text", b"text", 3, None):
        with pytest.raises(InvalidArgumentError, match="prompts must be an iterable of str, not"):
            list(gw.generate_batches(lm, prompts))
    with pytest.raises(InvalidArgumentError, match="prompt 1 must be a str, not 5"):
        list(gw.generate_batches(lm, ["a", 5], 2))  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match="lm must be a CausalLM"):
        list(gw.generate_batches("gpt2", ["a"]))  # type: ignore[call-overload]
    with pytest.raises(InvalidArgumentError, match="no preprocessor"):
        list(gw.generate_batches(gw.GPT2CausalLM(lm.backbone), ["a"]))


def test_lengths_are_those_without_the_start_token(lm):
    prompt = PROMPTS[1]
    length = len(lm.encode_prompts([prompt], lm.preprocessor)[0])
    options: Any = {"max_length": length - 1, "add_start_token": False}
    assert list(gw.generate_batches(lm, [prompt], **options)) == [lm.generate(prompt, **options)]
    with pytest.raises(ContextLengthError, match=f"has {length} tokens"):
        list(gw.generate_batches(lm, [prompt], max_length=length - 1))


def test_options_that_batches_cannot_have(lm, monkeypatch):
    class InPython(gw.samplers.RandomSampler):
        def get_next_token(self, probabilities):
            return [1] * probabilities.shape[0]

    monkeypatch.setattr(lm, "generate_async", None)  # all are rejected before the first batch
    beams = gw.samplers.BeamSampler(2, return_all_beams=True)
    for options, message in (
        ({"callback": print}, "takes no callback"),
        ({"num_return_sequences": 2}, "omit num_return_sequences, or call generate"),
        ({"sampler": beams}, "omit return_all_beams, or call generate"),
        ({"sampler": InPython(), "seed": 1}, "InPython does not choose on the GPU .* omit seed"),
        ({"sampler": "beam", "seed": 1}, "BeamSampler does not choose on the GPU"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            next(gw.generate_batches(lm, ["Once"], **options))
    lm.compile(beams)
    with pytest.raises(InvalidArgumentError, match="omit return_all_beams"):
        next(gw.generate_batches(lm, ["Once"]))


def test_prompts_that_are_skipped(lm):
    prompts: Any = [*PROMPTS[:2], "a " * 600, PROMPTS[2], 5, PROMPTS[3]]
    good = PROMPTS[:4]
    expected = list(gw.generate_batches(lm, good, max_new_tokens=2))
    sizes: list[int] = []
    texts = list(
        gw.generate_batches(
            lm, prompts, batch_size=2, on_error="skip", on_progress=sizes.append, max_new_tokens=2
        )
    )
    assert [texts[i] for i in (0, 1, 3, 5)] == expected
    assert isinstance(texts[2], ContextLengthError) and "prompt 2 has" in str(texts[2])
    assert isinstance(texts[4], InvalidArgumentError) and "prompt 4 must be a str" in str(texts[4])
    assert sizes == [2, 2, 2]
    found = gw.generate_batches(lm, prompts, batch_size=2, max_new_tokens=2)
    assert [next(found), next(found)] == expected[:2]  # the texts before the error come first
    with pytest.raises(ContextLengthError, match="prompt 2 has"):
        next(found)
    with pytest.raises(InvalidArgumentError, match="on_error must be 'stop' or 'skip', not 'no'"):
        next(gw.generate_batches(lm, prompts, on_error="no"))  # type: ignore[call-overload]


def test_the_size_of_a_batch_follows_from_the_memory(lm, monkeypatch):
    sizes = []
    generate = lm.generate_async

    async def counted(prompts, *args, **options):
        sizes.append(len(prompts))
        return await generate(prompts, *args, **options)

    monkeypatch.setattr(lm, "generate_async", counted)
    device = lm.backbone.device
    budget = gw.memory(device).budget
    try:
        for megabytes, largest in ((9, 5), (1000, 21)):
            gw.trim(device)
            in_use = gw.memory(device).num_bytes_in_gpu
            gw.set_memory_budget(in_use + (megabytes << 20), device)
            texts = list(gw.generate_batches(lm, PROMPTS, max_new_tokens=20))
            assert len(texts) == 21 and max(sizes) <= largest and sizes[0] > largest // 3
            sizes.clear()
    finally:
        gw.set_memory_budget(budget, device)
