"""Throughput of a continuous batch of 1, 4 and 16 places against one text after another.

    python benchmarks/continuous_batch.py [-m fairytales] [-q 32] [-n 64] [-r 5] [--output FILE]

Requests have prompts of random lengths and samplers, and come after random gaps of up to
`--gap` seconds. Unless every request has the ids of `generate` for its prompt alone, no speed
is shown. Figures: new tokens per second of all requests together, the median time from a request to
its first id, and the longest time for which the event loop ran nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.bench import RandomModel
from gpt2_wgpu.webgpu import sync

SAMPLERS = (samplers.Greedy(), samplers.TopK(40, temperature=0.8), samplers.TopP(0.95))
TICK = 0.001  # seconds between two looks at the event loop


@dataclass(frozen=True)
class Request:
    """One text."""

    prompt: list[int]
    max_new_tokens: int
    sampler: samplers.Sampler
    seed: int
    gap: float  # seconds since the request before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="fairytales", help="preset, directory or 124M")
    parser.add_argument("-d", "--dtype", default="float32")
    parser.add_argument("-q", "--requests", type=int, default=32)
    parser.add_argument("-p", "--prompt", type=int, default=64, help="longest prompt")
    parser.add_argument("-n", "--new-tokens", type=int, default=64, help="most new tokens")
    parser.add_argument("-w", "--places", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--gap", type=float, default=0.05, help="most seconds between requests")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    lm = model_of(args)
    requests = requests_of(lm, args)
    expected, _ = asyncio.run(one_after_another(lm, requests))
    for places in args.places:  # compiles the kernels of each number of rows
        asyncio.run(together(lm, requests, places))
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for places in (0, *args.places):  # in turns, so that a busy machine affects all
            run = together(lm, requests, places) if places else one_after_another(lm, requests)
            found, figures = asyncio.run(run)
            name = f"{places} place{'s' * (places > 1)}" if places else "one after another"
            if found != expected:
                print(f"{name}: ids differ from those of each prompt alone: no speed is shown")
                return 1
            runs.setdefault(name, []).append(figures)
    report = {
        "model": args.model,
        "dtype": args.dtype,
        "requests": args.requests,
        "new_tokens": sum(map(len, expected)),
        "median": {
            name: {
                key: round(statistics.median(one[key] for one in rounds), 4) for key in rounds[0]
            }
            for name, rounds in runs.items()
        },
        "rounds": runs,
        "adapter": lm.device.info.__dict__,
        "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("wgpu",)},
        "load": round(os.getloadavg()[0], 2),
    }
    show(report)
    if args.output:
        args.output.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return 0


def model_of(args: argparse.Namespace) -> gw.GPT2CausalLM:
    if Path(args.model).exists() or not args.model[:1].isdigit():
        return gw.GPT2CausalLM.from_preset(args.model, dtype=args.dtype)
    return sync(RandomModel.parse(args.model).load(args.dtype, gw.default_device()), "load")


def requests_of(lm: gw.GPT2CausalLM, args: argparse.Namespace) -> list[Request]:
    given = random.Random(0)
    vocabulary = lm.backbone.config.vocab_size - 1
    return [
        Request(
            [given.randrange(vocabulary) for _ in range(given.randint(1, args.prompt))],
            given.randint(args.new_tokens // 2, args.new_tokens),
            SAMPLERS[seed % len(SAMPLERS)],
            seed,
            given.uniform(0, args.gap),
        )
        for seed in range(args.requests)
    ]


async def one_after_another(
    lm: gw.GPT2CausalLM, requests: list[Request]
) -> tuple[list[list[int]], dict[str, float]]:
    """Return the new ids of each request by ``generate``, and figures."""
    texts, firsts, came, begun = [], list[float](), 0.0, time.perf_counter()
    for request in requests:
        came += request.gap
        await asyncio.sleep(begun + came - time.perf_counter())  # not at all, if it is late
        length, new = len(request.prompt) + request.max_new_tokens, list[int]()
        ids = request.prompt + [0] * request.max_new_tokens
        mask = [place < len(request.prompt) for place in range(length)]

        def note(_: int, token: int, __: str, new: list[int] = new, came: float = came) -> None:
            if not new:
                firsts.append(time.perf_counter() - begun - came)
            new.append(token)

        await lm.generate_async(
            {"token_ids": ids, "padding_mask": mask},
            stop_token_ids=None,
            sampler=request.sampler,
            seed=request.seed,
            callback=note,
        )
        texts.append(new)
    return texts, figures_of(texts, firsts, begun, 0.0)


async def together(
    lm: gw.GPT2CausalLM, requests: list[Request], places: int
) -> tuple[list[list[int]], dict[str, float]]:
    """Return the new ids of each request by a continuous batch, and figures."""
    firsts: list[float] = []

    async def read(row: gw.BatchRow) -> list[int]:
        came = time.perf_counter()
        new = await anext(row)
        firsts.append(time.perf_counter() - came)
        return [*new, *[token async for more in row for token in more]]

    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            slept = time.perf_counter()
            await asyncio.sleep(TICK)
            longest = max(longest, time.perf_counter() - slept - TICK)

    async with gw.ContinuousBatch(lm, places) as batch:
        watching = asyncio.ensure_future(watch())
        begun, reading = time.perf_counter(), []
        for request in requests:
            await asyncio.sleep(request.gap)
            row = batch.submit(
                request.prompt,
                max_new_tokens=request.max_new_tokens,
                sampler=request.sampler,
                seed=request.seed,
                stop_token_ids=None,
            )
            reading.append(asyncio.ensure_future(read(row)))
        texts = await asyncio.gather(*reading)
        figures = figures_of(texts, firsts, begun, longest)
        watching.cancel()
    return texts, figures


def figures_of(
    texts: list[list[int]], firsts: list[float], begun: float, blocked: float
) -> dict[str, float]:
    seconds = time.perf_counter() - begun
    return {
        "tokens_per_second": sum(map(len, texts)) / seconds,
        "seconds_to_first_id": statistics.median(firsts),
        "longest_block": blocked,
    }


def show(report: dict[str, Any]) -> None:
    alone = report["median"]["one after another"]["tokens_per_second"]
    for name, found in report["median"].items():
        rate = found["tokens_per_second"]
        print(
            f"{name:18} {rate:8.1f} tokens/s {rate / alone:6.2f} x, first id after "
            f"{found['seconds_to_first_id']:.2f} s, longest block {found['longest_block']:.3f} s"
        )
    print(f"on {report['adapter']['name']}, {report['cpu']}, load {report['load']}")


if __name__ == "__main__":
    sys.exit(main())
