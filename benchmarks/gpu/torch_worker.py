"""PyTorch's GPT-2 in a process of its own: reads a job as JSON from stdin, writes figures as JSON.

Needs PyTorch alone: the model is GPT-2 in plain PyTorch (scaled_dot_product_attention, a cache of
fixed size), eager and replayed from a CUDA graph. Where transformers can be imported, its
``generate`` is measured too. Weights are random; the head computes the last position only.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch
from torch.nn import functional

Job = dict[str, Any]


class GPT2:
    """The model, its cache for one row, and a greedy step."""

    def __init__(self, job: Job, device: str, dtype: torch.dtype) -> None:
        width, self.heads = job["width"], job["heads"]
        self.capacity = job["capacity"]

        def random(*shape: int) -> torch.Tensor:
            return (0.1 * torch.randn(shape, device=device)).to(dtype)

        self.wte, self.wpe = random(job["vocabulary"], width), random(self.capacity, width)
        sizes = {"qkv": 3 * width, "proj": width, "fc": 4 * width}
        self.layers: list[dict[str, Any]] = [
            {
                **{name: (random(size, width), random(size)) for name, size in sizes.items()},
                "out": (random(width, 4 * width), random(width)),
                "norms": [(random(width), random(width)) for _ in range(2)],
            }
            for _ in range(job["layers"])
        ]
        self.norm = random(width), random(width)
        shape = (job["layers"], 2, self.heads, self.capacity, width // self.heads)
        self.cache = torch.zeros(shape, device=device, dtype=dtype)
        self.places = torch.arange(self.capacity, device=device)

    def _norm(self, x: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], *norm)

    def logits(self, ids: torch.Tensor, at: torch.Tensor, seen: int) -> torch.Tensor:
        """Return the logits after ``ids`` [T] at positions ``at`` [T], of ``seen`` cached ones."""
        x = self.wte[ids] + self.wpe[at]
        mask = self.places[None, :seen] <= at[:, None]
        for layer, cache in zip(self.layers, self.cache, strict=True):
            qkv = functional.linear(self._norm(x, layer["norms"][0]), *layer["qkv"])
            heads = qkv.view(len(ids), 3, self.heads, -1).permute(1, 2, 0, 3)
            cache.index_copy_(2, at, heads[1:])
            keys, values = cache[0, :, :seen], cache[1, :, :seen]
            y = functional.scaled_dot_product_attention(heads[0], keys, values, attn_mask=mask)
            x = x + functional.linear(y.transpose(0, 1).reshape(x.shape), *layer["proj"])
            inner = functional.linear(self._norm(x, layer["norms"][1]), *layer["fc"])
            x = x + functional.linear(functional.gelu(inner, approximate="tanh"), *layer["out"])
        return functional.linear(self._norm(x[-1:], self.norm), self.wte)


def synchronize(device: str) -> None:
    if device != "cpu":
        getattr(torch, device).synchronize()


def timed(device: str, work: Any) -> tuple[float, Any]:
    """Return seconds and result."""
    synchronize(device)
    begun = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - begun, result


def eager(model: GPT2, prompt: torch.Tensor, count: int, device: str) -> tuple[float, float, Any]:
    """Return seconds of the prefill, of the ``count - 1`` tokens after its own, and the ids."""
    at = torch.arange(len(prompt), device=device)
    prefill, logits = timed(device, lambda: model.logits(prompt, at, len(prompt)))
    first = logits.argmax(-1)

    def more() -> list[torch.Tensor]:
        tokens = [first]
        for place in range(len(prompt), len(prompt) + count - 1):
            here = torch.tensor([place], device=device)
            tokens.append(model.logits(tokens[-1], here, place + 1).argmax(-1))
        return tokens

    seconds, tokens = timed(device, more)
    return prefill, seconds, torch.cat(tokens).tolist()


class Graph:
    """A greedy step in a CUDA graph: it reads and advances ``token`` and ``at``."""

    def __init__(self, model: GPT2, device: str) -> None:
        self.token = torch.zeros(1, dtype=torch.long, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)

        def step() -> None:
            token = model.logits(self.token, self.at, model.capacity).argmax(-1)
            self.token.copy_(token)
            self.at.add_(1)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step()

    def run(self, first: int, begin: int, count: int) -> tuple[float, list[int]]:
        """Return seconds and ids of ``count`` tokens after ``first``, at position ``begin``."""
        self.token.fill_(first)
        self.at.fill_(begin)
        kept = torch.zeros(count, dtype=torch.long, device=self.token.device)

        def more() -> list[int]:
            for place in range(count):
                self.graph.replay()
                kept[place : place + 1].copy_(self.token)
            return [int(token) for token in kept.tolist()]

        return timed("cuda", more)


def measure(job: Job, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the figures of one format: medians of seconds and rates."""
    model = GPT2(job, device, dtype)
    prompt = torch.randint(job["vocabulary"], (job["prompt_tokens"],), device=device)
    count, repeats = job["new_tokens"], job["repeats"]
    eager(model, prompt, count, device)
    runs = [eager(model, prompt, count, device) for _ in range(repeats)]
    found = {
        "prefill_seconds": statistics.median(run[0] for run in runs),
        "eager_tokens_per_second": (count - 1) / statistics.median(run[1] for run in runs),
    }
    long = torch.randint(job["vocabulary"], (job["prefill_tokens"],), device=device)
    at = torch.arange(len(long), device=device)
    seconds = [
        timed(device, lambda: model.logits(long, at, len(long)).argmax(-1).tolist())[0]
        for _ in range(repeats + 2)
    ]
    found["long_prefill_seconds"] = statistics.median(seconds[2:])
    if device == "cuda":
        graph = Graph(model, device)
        model.cache.zero_()  # what the warm-up wrote
        ids = eager(model, prompt, count, device)[2]
        graph.run(ids[0], len(prompt), count - 1)
        again = [graph.run(ids[0], len(prompt), count - 1) for _ in range(repeats)]
        rate = (count - 1) / statistics.median(run[0] for run in again)
        found["graph_tokens_per_second"] = rate
        found["graph_equal_tokens"] = sum(
            one == other for one, other in zip(ids[1:], again[-1][1], strict=True)
        ) / max(1, count - 1)
    return found


def measure_transformers(job: Job, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the rate of ``model.generate``; {} without transformers."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return {}
    config = GPT2Config(
        vocab_size=job["vocabulary"],
        n_layer=job["layers"],
        n_head=job["heads"],
        n_embd=job["width"],
        n_positions=job["capacity"],
    )
    model: Any = GPT2LMHeadModel(config)
    model.to(dtype=dtype, device=torch.device(device)).eval()
    ids = torch.randint(job["vocabulary"], (1, job["prompt_tokens"]), device=device)

    def generate(count: int) -> Any:
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )

    count = job["new_tokens"]
    generate(count)
    whole = statistics.median(timed(device, lambda: generate(count))[0] for _ in range(3))
    one = statistics.median(timed(device, lambda: generate(1))[0] for _ in range(3))
    return {"transformers_tokens_per_second": (count - 1) / max(whole - one, 1e-9)}


def device_of(job: Job) -> str | None:
    """Return PyTorch's GPU; the CPU only for a job that says so."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu" if job["software"] else None


def main() -> None:
    job = json.load(sys.stdin)
    device = device_of(job)
    found: dict[str, Any] = {"torch": torch.__version__, "device": device}
    if device is None:
        json.dump(found, sys.stdout)
        return
    if device == "cuda":
        found["name"] = torch.cuda.get_device_name()
    torch.manual_seed(1)
    for name, dtype in (("f16", torch.float16), ("f32", torch.float32)):
        with torch.inference_mode():
            found[name] = measure(job, device, dtype)
            if job["transformers"]:
                found[name] |= measure_transformers(job, device, dtype)
        print(json.dumps(found), flush=True)  # the last line counts, also when time runs out


if __name__ == "__main__":
    main()
