"""Speed beside Hugging Face transformers, on the same weights, in one run.

    python benchmarks/against_transformers.py [-m fairytales] [-n 128] [--output FILE.json]

Both continue the same ids greedily; unless all tokens are equal, those of float16 too, no speed is
shown. The two take turns, and the median of the rounds counts. Time to the first token (prefill
and one step) and decoding (the tokens after it) are measured apart. transformers runs PyTorch on
the CPU in f32; this engine runs on the adapter that is named in the output, which may be a CPU too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

import gpt2_wgpu as gw
from gpt2_wgpu.models import presets

PROMPT = "Once upon a time"
PEER = "transformers float32"


@dataclass(frozen=True)
class Timed:
    """One greedy continuation."""

    token_ids: list[int]
    seconds: float
    seconds_to_first_token: float

    @property
    def decode_rate(self) -> float:
        """Tokens after the first, a second."""
        return (len(self.token_ids) - 1) / (self.seconds - self.seconds_to_first_token)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="fairytales", help="preset or directory")
    parser.add_argument("-n", "--new-tokens", type=int, default=128, help="at least 2")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    if args.new_tokens < 2:
        parser.error("-n must be at least 2: the first token is timed apart")

    ours = {
        name: gw.GPT2CausalLM.from_preset(args.model, dtype=name) for name in ("float32", "float16")
    }
    peer = AutoModelForCausalLM.from_pretrained(
        presets.resolve(args.model), dtype=torch.float32
    ).eval()
    (prompt,) = ours["float32"].preprocessor.encode_prompts([PROMPT])
    runs = {f"gpt2-wgpu {name}": make_ours(lm, args.new_tokens) for name, lm in ours.items()}
    runs[PEER] = make_theirs(peer, prompt, args.new_tokens)

    expected = runs[PEER]().token_ids
    for name, run in runs.items():
        if run().token_ids != expected:  # warms up, too
            print(f"{name}: tokens differ from transformers', so no speed is shown")
            return 1
    rounds = measure(runs, args.rounds)
    device = ours["float32"].device
    report = make_report(args, rounds, device)
    show(report)
    print(f"on {device.info.name}; torch on {report['cpu']}")
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def make_ours(lm: gw.GPT2CausalLM, new_tokens: int) -> Callable[[], Timed]:
    lm.compile(sampler="greedy")

    def run() -> Timed:
        begun = time.perf_counter()
        stream = lm.stream(PROMPT, new_tokens, stop_token_ids=None)
        for _ in stream:
            pass
        seconds = time.perf_counter() - begun
        return Timed(stream.stats.token_ids, seconds, stream.stats.seconds_to_first_token)

    return run


class FirstToken(BaseStreamer):
    """Notes when the first new token came; transformers puts the prompt, then token by token."""

    def __init__(self) -> None:
        self.calls: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.calls.append(time.perf_counter())

    def end(self) -> None:
        pass

    @property
    def at(self) -> float:
        return self.calls[1]


def make_theirs(model: torch.nn.Module, prompt: list[int], new_tokens: int) -> Callable[[], Timed]:
    ids = torch.tensor([prompt])

    @torch.inference_mode()
    def run() -> Timed:
        first = FirstToken()
        begun = time.perf_counter()
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=first,
        )
        seconds = time.perf_counter() - begun
        return Timed(out[0, len(prompt) :].tolist(), seconds, first.at - begun)

    return run


def measure(runs: dict[str, Callable[[], Timed]], rounds: int) -> dict[str, list[Timed]]:
    """``rounds`` runs of each, in turns, so that a busy machine disturbs all alike."""
    found: dict[str, list[Timed]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return found


def make_report(
    args: argparse.Namespace, rounds: dict[str, list[Timed]], device: gw.Device
) -> dict[str, object]:
    def median(figure: Callable[[Timed], float], digits: int) -> dict[str, float]:
        return {
            name: round(statistics.median(map(figure, timed)), digits)
            for name, timed in rounds.items()
        }

    return {
        "model": args.model,
        "new_tokens": args.new_tokens,
        "rounds": args.rounds,
        "measured": "tokens_per_second: decoding, after the first token; seconds: all of a run",
        "tokens_per_second": median(lambda timed: timed.decode_rate, 2),
        "seconds_to_first_token": median(lambda timed: timed.seconds_to_first_token, 4),
        "seconds": {name: [round(t.seconds, 4) for t in timed] for name, timed in rounds.items()},
        "adapter": device.info.__dict__,
        "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("wgpu", "torch", "transformers")},
        "foreign_load": round(os.getloadavg()[0], 2),
    }


def show(report: dict[str, object]) -> None:
    rates, first = report["tokens_per_second"], report["seconds_to_first_token"]
    print(f"{'':22} {'decoding':>17} {'':>8} {'first token':>14}")
    for name, rate in rates.items():
        ratio = f"{rate / rates[PEER]:.2f} x"
        print(f"{name:22} {rate:8.1f} tokens/s {ratio:>8} {1000 * first[name]:11.1f} ms")


if __name__ == "__main__":
    sys.exit(main())
