"""Soak test: random requests for minutes, each text compared with that of a new model.

    .venv-test/bin/python benchmarks/soak.py --minutes 5 --dtype float16 q8

Requests vary in prompts, batch size, length, sampler, penalties and end: complete, a stream left
early, a task cancelled, the device lost before or during generation. After every round all requests
are repeated without interruption by a new model on its own device. Prints figures for each dtype;
exits with status 1 if a text differs, a tensor is leaked, or the process grows.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.models import recovery
from gpt2_wgpu.webgpu.backends import flush_promises

ROUND = 20  # requests between two comparisons
MAX_GROWTH = 32 << 20  # bytes; a software driver keeps some memory of lost devices
TEXT = """once upon a time there was king queen wolf forest old little daughter said the and went
into golden bird castle; never: 'Good day!' naïve 東京 <|endoftext|> 1812 x"""
WORDS = TEXT.split()
NEW_TOKENS = [1, 5, 20, 60]
ENDS = ["whole"] * 5 + ["batch"] * 6 + ["left", "left", "cancelled", "lost before", "lost within"]


@dataclass
class Request:
    """One request; ``text``: the generated text up to its end."""

    prompts: list[str]
    sampler: dict[str, Any]
    new_tokens: int
    stops: Any
    end: str
    after: int  # pieces or milliseconds before the end
    text: list[str] = field(default_factory=list)


def any_request(chance: random.Random) -> Request:
    """Return a random request."""
    end = chance.choice(ENDS)
    rows = chance.choice([1, 2, 3, 5, 8]) if end == "batch" else 1
    prompts = [" ".join(chance.choices(WORDS, k=chance.choice([1, 3, 9, 40]))) for _ in range(rows)]
    seed, temperature = chance.randrange(2**64), chance.choice([0.3, 0.8, 1.0, 1.7])
    common: dict[str, Any] = {"seed": seed, "temperature": temperature}
    name, config = chance.choice(
        [
            ("greedy", {}),
            ("random", common),
            ("top_k", {"k": chance.choice([1, 5, 40, 300]), **common}),
            ("top_p", {"p": chance.choice([0.1, 0.5, 0.95]), **common}),
            ("top_p", {"p": 0.9, "k": 50, **common}),
        ]
    )
    if chance.random() < 0.4:
        config = config | {"repetition_penalty": 1.1, "frequency_penalty": 0.2}
    return Request(
        prompts,
        {"class_name": name, "config": config},
        chance.choice(NEW_TOKENS),
        chance.choice(["auto", None]),
        end,
        chance.randrange(1, 12),
    )


def answer(lm: gw.GPT2CausalLM, request: Request, end: str) -> list[str]:
    """Return the texts of ``request``, with the given end."""
    lm.compile(sampler=samplers.get(request.sampler))
    if end == "lost before":
        lose(lm)
    if end == "batch":
        assert lm.preprocessor is not None
        rows = lm.preprocessor.encode_prompts(request.prompts)
        length = max(map(len, rows)) + request.new_tokens
        return list(lm.generate(request.prompts, length, request.stops))
    stream = lm.stream(
        request.prompts[0], max_new_tokens=request.new_tokens, stop_token_ids=request.stops
    )
    if end == "cancelled":
        return ["".join(asyncio.run(cancelled(stream, request.after / 200)))]
    pieces = []
    with stream:
        for index, piece in enumerate(stream):
            pieces.append(piece)
            if index == request.after and end == "left":
                break
            if index == request.after and end == "lost within":
                lose(lm)
    return ["".join(pieces)]


async def cancelled(stream: gw.TextStream, seconds: float) -> list[str]:
    """Return the pieces that arrive before the task is cancelled after ``seconds``."""
    pieces: list[str] = []

    async def read() -> None:
        async for piece in stream:
            pieces.append(piece)
            await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return pieces


def lose(lm: gw.GPT2CausalLM) -> None:
    """Simulate a driver reset."""
    lm.device.gpu.destroy()
    flush_promises(lm.device.gpu)


def process_bytes(lm: gw.GPT2CausalLM) -> int:
    """Return the anonymous memory of this process, with a software GPU's; 0 if unknown.

    Free memory is excluded: the pool of the model's device, and glibc's free lists.
    """
    if sys.platform != "linux":
        return 0
    gc.collect()
    gw.trim(lm.device)
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def loaded(preset: str, dtype: str) -> gw.GPT2CausalLM:
    """Load a model on its own device."""
    return gw.GPT2CausalLM.from_preset(preset, dtype=dtype, device=gw.Device())


def closed(lm: gw.GPT2CausalLM) -> int:
    """Dispose a model and close its device; return the number of leaked tensors."""
    lm.dispose()
    gc.collect()
    left = gw.memory(lm.device).num_tensors
    lm.device.close()
    return left


def wrong_texts(preset: str, dtype: str, requests: list[Request]) -> list[str]:
    """Return a line for each request whose text differs from that of a new model."""
    fresh, wrong = loaded(preset, dtype), []
    for request in requests:
        expected = answer(fresh, request, "batch" if request.end == "batch" else "whole")
        whole = request.end not in ("left", "cancelled")
        same = request.text == expected if whole else expected[0].startswith(request.text[0])
        if not same:
            wrong.append(f"{request}: expected {expected}")
    closed(fresh)
    return wrong


def soak(preset: str, dtype: str, seconds: float, seed: int) -> bool:
    """Run the soak of one dtype and print its figures; return whether it passed."""
    chance = random.Random(f"{seed} {dtype}")
    lm = loaded(preset, dtype)
    held = gw.memory(lm.device).by_kind
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    left = characters = 0
    sizes: list[int] = []
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        requests = [any_request(chance) for _ in range(ROUND)]
        for request in requests:
            request.text = answer(lm, request, request.end)
            ends[request.end] += 1
            characters += sum(map(len, request.text))
        gc.collect()
        left += gw.memory(lm.device).by_kind != held
        found = wrong_texts(preset, dtype, requests)
        wrong += found
        for line in found:
            print(f"{dtype}: WRONG {line}", flush=True)
        sizes.append(process_bytes(lm))
    left += closed(lm)
    settled = sizes[len(sizes) // 4 :]
    growth = max(settled[-3:]) - settled[0]
    print(
        f"{dtype}: {time.monotonic() - begun:.0f} s, {sum(ends.values())} requests "
        f"({', '.join(f'{count} {end}' for end, count in sorted(ends.items()))}), "
        f"{characters:,} characters, {len(wrong)} wrong, {left} leaks, process "
        f"{sizes[0] >> 20} MiB after the first round, {settled[0] >> 20} after a quarter, "
        f"{sizes[-1] >> 20} at the end",
        flush=True,
    )
    return not wrong and not left and growth < MAX_GROWTH


def main(argv: list[str] | None = None) -> int:
    """Run the soak; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="fairytales", help="model (fairytales)")
    parser.add_argument("--dtype", nargs="+", default=["float16", "q8"], help="(float16 q8)")
    parser.add_argument("--minutes", type=float, default=10, help="for all dtypes together (10)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    options = parser.parse_args(argv)
    seconds = 60 * options.minutes / len(options.dtype)
    before, recovery.SECONDS_BETWEEN_LOSSES = recovery.SECONDS_BETWEEN_LOSSES, 0
    try:
        well = [soak(options.preset, dtype, seconds, options.seed) for dtype in options.dtype]
    finally:
        recovery.SECONDS_BETWEEN_LOSSES = before
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
