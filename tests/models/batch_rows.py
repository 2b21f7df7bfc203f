"""Rows of a continuous batch in tests: models, jobs, and the ids of each alone."""

from __future__ import annotations

import asyncio
import random

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from tests.memory.tiny import ids_of, packed

CONTEXT = 48
STOPS = list(range(0, 257, 32))
SAMPLERS = [
    "greedy",
    samplers.TopK(20),
    samplers.TopP(0.9, temperature=1.5),
    samplers.TopK(3, temperature=0.8, min_p=0.05),
    samplers.Random(typical_p=0.9),
]
WITH_RULES = [
    samplers.TopK(20, repetition_penalty=1.3, frequency_penalty=0.5),
    samplers.Random(no_repeat_ngram_size=2, min_new_tokens=4),
    samplers.TopK(9, sequence_bias={(5, 6): 3.0, (7,): 2.0}, forced_eos_token_id=9),
]


def model_of(dtype, device):
    """A small model with logits far from constant."""
    backbone = gw.GPT2Backbone(
        257, 2, 2, 64, 96, max_sequence_length=CONTEXT, dtype=dtype, initializer_range=0.5,
        cache_dtype="float16" if dtype == "float16" else "float32", device=device,
    )  # fmt: skip
    lm = gw.GPT2CausalLM(backbone)
    lm.compile("greedy")
    return lm


def alone(lm, prompt, limit, **options):
    """The new ids of ``generate``."""
    inputs = packed([list(prompt)], min(len(prompt) + limit, CONTEXT))
    found = lm.generate(inputs, **options)
    (ids,), (mask,) = ids_of(found), [list(row) for row in found["padding_mask"]]
    lm.kept_runs.close()
    lm.compile("greedy")
    gw.trim()
    return [token for token, real in zip(ids, mask, strict=True) if real][len(prompt) :]


def alone_in_detail(lm, prompt, limit, **options):
    """The details of ``generate``."""
    inputs = packed([list(prompt)], min(len(prompt) + limit, CONTEXT))
    (found,) = lm.generate(inputs, return_details=True, **options)
    lm.kept_runs.close()
    lm.compile("greedy")
    gw.trim()
    return found


def jobs_of(count, seed, options):
    """(prompt, max_new_tokens, options) of rows."""
    given = random.Random(seed)
    for index in range(count):
        prompt = [given.randrange(257) for _ in range(given.choice([1, 2, 5, 17, 30]))]
        stops = STOPS if index % 3 else None
        sampler = options[index % len(options)]
        yield prompt, given.randrange(1, 40), {
            "sampler": sampler, "seed": index, "stop_token_ids": stops
        }  # fmt: skip


async def read(row):
    """All ids of a row, by lists."""
    pieces = [ids async for ids in row]
    assert all(pieces)
    return [token for ids in pieces for token in ids]


async def run(lm, jobs, seed, max_rows=4):
    """The rows of jobs that arrive in random gaps."""
    given, reading, rows = random.Random(seed), [], []
    async with gw.ContinuousBatch(lm, max_rows) as batch:
        for prompt, limit, options in jobs:
            rows.append(batch.submit(prompt, max_new_tokens=limit, **options))
            reading.append(asyncio.ensure_future(read(rows[-1])))
            assert batch.stats().running <= max_rows
            for _ in range(given.randrange(4)):
                await asyncio.sleep(0.002)
        found = await asyncio.gather(*reading)
        assert batch.stats().tokens == sum(map(len, found))
    return found, rows
