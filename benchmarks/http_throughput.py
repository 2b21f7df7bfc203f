"""Throughput of the HTTP API for 1, 4, 16 clients at once.

    python benchmarks/http_throughput.py [-c 1 4 16] [-m MODEL] [--dtype f32] [--output FILE.json]

Starts `gpt2-wgpu serve --api`, and lets the clients continue the same prompts greedily, each client
one after another over a connection of its own. Unless every text equals that of `generate` in this
process, no speed is shown. Needs the extra `gpt2-wgpu[server]`, and httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import gpt2_wgpu as gw
from gpt2_wgpu.bench.machine import load_average, versions
from gpt2_wgpu.weight_formats import OPTIONS

OPENINGS = ("Once upon a time", "The king", "In the forest there lived", "A wolf came and said,")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="fairytales", help="preset or directory")
    parser.add_argument("--dtype", choices=OPTIONS, default="f32")
    parser.add_argument("-n", "--new-tokens", type=int, default=32)
    parser.add_argument("-p", "--prompts", type=int, default=48)
    parser.add_argument("-c", "--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    prompts = [f"{OPENINGS[i % len(OPENINGS)]} {i}" for i in range(args.prompts)]
    expected, adapter = own_texts(args, prompts)
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in args.clients}
    with served(args) as address:
        asyncio.run(run(address, args, prompts[:1], 1))  # compiles the kernels
        for _ in range(args.rounds):
            for count in args.clients:  # in turns, so that a busy machine affects all
                texts, figures = asyncio.run(run(address, args, prompts, count))
                if texts != expected:
                    print(f"{count} clients: texts differ from those of generate: no speed shown")
                    return 1
                runs[count].append(figures)
    report = {
        "adapter": adapter,
        "machine": platform.machine(),
        "versions": versions() | {"httpx": httpx.__version__},
        "load_average": load_average(),
        "settings": {name: value for name, value in vars(args).items() if name != "output"},
        "runs": runs,
    }
    show(runs)
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def own_texts(args: argparse.Namespace, prompts: list[str]) -> tuple[list[str], str]:
    """Return the text of each prompt alone, and the name of the adapter."""
    with gw.GPT2CausalLM.from_preset(args.model, dtype=OPTIONS[args.dtype]) as lm:
        texts = [
            lm.generate(
                prompt,
                max_new_tokens=args.new_tokens,
                stop_token_ids=None,
                sampler="greedy",
                strip_prompt=True,
            )
            for prompt in prompts
        ]
        return texts, lm.device.info.name


@contextmanager
def served(args: argparse.Namespace) -> Iterator[str]:
    """Run a server; yields the address of its API."""
    command = [sys.executable, "-m", "gpt2_wgpu.cli", "serve", "--api", args.model]
    with subprocess.Popen(
        [*command, "--port", "0", "--dtype", args.dtype], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def run(
    address: str, args: argparse.Namespace, prompts: list[str], count: int
) -> tuple[list[str], dict[str, float]]:
    """Return the texts in the order of the prompts, and figures of ``count`` clients."""
    texts = [""] * len(prompts)
    missing = iter(enumerate(prompts))
    first_pieces: list[float] = []
    begun = time.perf_counter()

    async def client() -> None:
        async with httpx.AsyncClient(timeout=600) as http:
            for index, prompt in missing:
                body = {"prompt": prompt, "max_tokens": args.new_tokens, "temperature": 0}
                body |= {"stream": True, "stop_token_ids": []}
                pieces: list[str] = []
                asked = time.perf_counter()
                async with http.stream("POST", f"{address}/completions", json=body) as answer:
                    answer.raise_for_status()
                    async for piece in texts_of(answer):
                        if not pieces:
                            first_pieces.append(time.perf_counter() - asked)
                        pieces.append(piece)
                texts[index] = "".join(pieces)

    await asyncio.gather(*(client() for _ in range(count)))
    seconds = time.perf_counter() - begun
    return texts, {
        "tokens_per_second": len(prompts) * args.new_tokens / seconds,
        "median_seconds_to_first_piece": statistics.median(first_pieces),
    }


async def texts_of(answer: httpx.Response) -> Any:
    """Yield the pieces of text of a stream."""
    async for line in answer.aiter_lines():
        if line.startswith("data: {"):
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                if choice["text"]:
                    yield choice["text"]


def show(runs: dict[int, list[dict[str, float]]]) -> None:
    """Print a table of medians."""
    print("| clients | tokens/s | to the first piece |\n|---|---|---|")
    for count, figures in runs.items():
        speeds = sorted(each["tokens_per_second"] for each in figures)
        first = statistics.median(each["median_seconds_to_first_piece"] for each in figures)
        spread = f"{speeds[0]:.0f} to {speeds[-1]:.0f}"
        print(f"| {count} | {statistics.median(speeds):.0f} ({spread}) | {first * 1000:.0f} ms |")


if __name__ == "__main__":
    sys.exit(main())
