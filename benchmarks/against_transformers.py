"""Decode speed beside Hugging Face transformers, on the same weights, in one run.

    python benchmarks/against_transformers.py [-m fairytales] [-n 128] [--output FILE.json]

Both continue the same ids greedily; unless all tokens are equal no speed is printed. The two take
turns, and the median of the rounds counts. transformers runs PyTorch on the CPU in f32; this
engine runs on the adapter that is named in the output, which may be a CPU too.
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

import torch
from transformers import AutoModelForCausalLM

import gpt2_wgpu as gw
from gpt2_wgpu.models import presets

PROMPT = "Once upon a time"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="fairytales", help="preset or directory")
    parser.add_argument("-n", "--new-tokens", type=int, default=128)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    ours = {
        name: gw.GPT2CausalLM.from_preset(args.model, dtype=name) for name in ("float32", "float16")
    }
    peer = AutoModelForCausalLM.from_pretrained(
        presets.resolve(args.model), dtype=torch.float32
    ).eval()
    (prompt,) = ours["float32"].preprocessor.encode_prompts([PROMPT])
    runs = {f"gpt2-wgpu {name}": make_ours(lm, prompt, args) for name, lm in ours.items()}
    runs["transformers float32"] = make_theirs(peer, prompt, args)

    expected = runs["transformers float32"]()[0]
    for name, run in runs.items():
        tokens, _ = run()  # warms up, too
        if "float32" in name and tokens != expected:
            print(f"{name}: tokens differ from transformers', so no speed is shown")
            return 1
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            seconds[name].append(run()[1])

    rates = {name: args.new_tokens / statistics.median(s) for name, s in seconds.items()}
    report = {
        "model": args.model,
        "new_tokens": args.new_tokens,
        "rounds": args.rounds,
        "tokens_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "seconds": {name: [round(s, 4) for s in all_] for name, all_ in seconds.items()},
        "adapter": ours["float32"].device.info.__dict__,
        "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("wgpu", "torch", "transformers")},
        "foreign_load": round(os.getloadavg()[0], 2),
    }
    for name, rate in rates.items():
        print(f"{name:22} {rate:8.1f} tokens/s   {rate / rates['transformers float32']:.2f} x")
    print(f"on {ours['float32'].device.info.name}; torch on {report['cpu']}")
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def make_ours(lm, prompt, args):
    lm.compile(sampler="greedy")
    length = len(prompt) + args.new_tokens
    packed = {
        "token_ids": prompt + [0] * args.new_tokens,
        "padding_mask": [place < len(prompt) for place in range(length)],
    }

    def run():
        begun = time.perf_counter()
        out = lm.generate(packed, stop_token_ids=None)
        return out["token_ids"].tolist(), time.perf_counter() - begun

    return run


def make_theirs(model, prompt, args):
    ids = torch.tensor([prompt])

    @torch.inference_mode()
    def run():
        begun = time.perf_counter()
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=args.new_tokens,
            min_new_tokens=args.new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        return out[0].tolist(), time.perf_counter() - begun

    return run


if __name__ == "__main__":
    sys.exit(main())
