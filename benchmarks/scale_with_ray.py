"""Throughput of batch inference: one process, then 1, 2, ... workers of a local Ray cluster.

    python benchmarks/scale_with_ray.py [-w 1 2] [-r 3] [--num-gpus 1] [--output FILE.json]

All runs continue the same prompts greedily; unless all texts are equal, no speed is shown. Figures
per run: tokens/s of computation (from the start of the first call to the end of the last one,
models loaded and warm), and total seconds, including Ray's start of the workers. `--num-gpus 1`
assigns a GPU to each worker; by default workers share one adapter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray

import gpt2_wgpu as gw
from gpt2_wgpu.integrations.ray import GPT2Generator

OPENINGS = ("Once upon a time", "The king", "In the forest there lived", "A wolf came and said,")
ALONE = "one process"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="fairytales", help="preset or directory")
    parser.add_argument("-n", "--new-tokens", type=int, default=32)
    parser.add_argument("-p", "--prompts", type=int, default=64)
    parser.add_argument("-b", "--rows-at-once", type=int, default=16)
    parser.add_argument("-w", "--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("--num-gpus", type=float, default=0.0, help="GPUs a worker")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    prompts = [f"{OPENINGS[i % len(OPENINGS)]} {i}" for i in range(args.prompts)]
    arguments = {
        "preset": args.model,
        "sampler": "greedy",
        "max_new_tokens": args.new_tokens,
        "stop_token_ids": None,
        "rows_at_once": args.rows_at_once,
        "adapter": "auto" if args.num_gpus else None,
    }
    ray.init(
        num_cpus=max(args.workers) + 1,  # one for reading
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    names = {ALONE: 0} | {f"{count} Ray worker{'s' * (count > 1)}": count for count in args.workers}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    expected = None
    for _ in range(args.rounds):
        for name, workers in names.items():  # in turns, so that a busy machine affects all
            found, figures = run(workers, prompts, arguments, args)
            expected = expected or found
            if found != expected:
                print(f"{name}: texts differ from those of {ALONE}, so no speed is shown")
                return 1
            runs[name].append(figures)
    report = make_report(args, runs)
    show(report)
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def make_timed() -> type[GPT2Generator]:
    """Return a generator class that is warm from the start and records its computing times.

    Defined in a function, so that Ray serialises the class: workers cannot import this script.
    """

    class Timed(GPT2Generator):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            GPT2Generator.__call__(self, {"prompt": ["Once"]})

        def __call__(self, batch: Any) -> dict[str, Any]:
            begun = time.time()
            result = super().__call__(batch)
            rows = len(batch["prompt"])
            record = {"begun": begun, "ended": time.time(), "worker": os.getpid()}
            return result | {name: [value] * rows for name, value in record.items()}

    return Timed


def run(
    workers: int, prompts: list[str], arguments: dict[str, Any], args: argparse.Namespace
) -> tuple[list[str], dict[str, Any]]:
    """Return the texts in the order of the prompts, and figures."""
    timed, size, begun = make_timed(), args.rows_at_once, time.perf_counter()
    if workers:
        rows = (
            ray.data.from_items([{"id": i, "prompt": text} for i, text in enumerate(prompts)])
            .repartition(-(-len(prompts) // size))
            .map_batches(
                timed,
                fn_constructor_kwargs=arguments,
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
                batch_size=size,
                num_gpus=args.num_gpus or None,
            )
            .take_all()
        )
    else:
        rows = []
        with timed(**arguments) as generate:
            for first in range(0, len(prompts), size):
                numbers = range(first, min(first + size, len(prompts)))
                batch = {"id": list(numbers), "prompt": [prompts[i] for i in numbers]}
                columns = generate(batch)
                rows += [
                    dict(zip(columns, r, strict=True)) for r in zip(*columns.values(), strict=True)
                ]
    seconds = time.perf_counter() - begun
    rows.sort(key=lambda row: row["id"])
    tokens = sum(int(row["new_tokens"]) for row in rows)
    computing = max(row["ended"] for row in rows) - min(row["begun"] for row in rows)
    figures = {
        "tokens": tokens,
        "seconds_computing": round(computing, 3),
        "tokens_per_second": round(tokens / computing, 1),
        "seconds_in_all": round(seconds, 3),
        "workers_that_computed": len({row["worker"] for row in rows}),
    }
    return [row["generated_text"] for row in rows], figures


def make_report(
    args: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]
) -> dict[str, object]:
    with gw.Device() as device:
        adapter = device.info.__dict__
    return {
        "model": args.model,
        "prompts": args.prompts,
        "new_tokens": args.new_tokens,
        "rows_at_once": args.rows_at_once,
        "median": {
            name: {
                figure: statistics.median(one[figure] for one in rounds)
                for figure in ("tokens_per_second", "seconds_in_all")
            }
            for name, rounds in runs.items()
        },
        "rounds": runs,
        "adapter": adapter,
        "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("wgpu", "ray")},
        "foreign_load": round(os.getloadavg()[0], 2),
    }


def show(report: dict[str, Any]) -> None:
    alone = report["median"][ALONE]["tokens_per_second"]
    for name, figures in report["median"].items():
        rate = figures["tokens_per_second"]
        print(
            f"{name:16} {rate:9.1f} tokens/s computing {rate / alone:7.2f} x "
            f"{figures['seconds_in_all']:8.1f} s in all"
        )
    print(f"on {report['adapter']['name']}, {report['cpu']}, load {report['foreign_load']}")


if __name__ == "__main__":
    sys.exit(main())
