"""Kernel variants that text generation takes on a GPU, found by generating on a `PaperDevice`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu import nn
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.webgpu.capabilities import AdapterInfo
from gpt2_wgpu.webgpu.paper_device import PaperDevice
from gpt2_wgpu.webgpu.pipelines import Signature, load_source
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

MODELS = {"124M": 768, "XL": 1600}  # name → width; one layer: all are alike
ADAPTER = AdapterInfo("a GPU on paper", "", "", "", "DiscreteGPU")
LIMITS = {  # that most GPUs grant
    "max-buffer-size": 1 << 31,
    "max-storage-buffer-binding-size": (1 << 31) - 4,
    "max-compute-invocations-per-workgroup": 1024,
    "max-compute-workgroup-size-x": 1024,
    "max-compute-workgroup-storage-size": 32 << 10,
    "max-storage-buffers-per-shader-stage": 16,
    "max-compute-workgroups-per-dimension": 65_535,
}
HEAD, VOCABULARY, CONTEXT = 64, 50_257, 1024
ROWS = (1, 8, 16, 64)  # of a decode step
PROMPTS = (33, 128, 512)  # tokens of a prefill chunk
SAMPLERS = {
    "greedy": nn.SamplingOptions(temperature=0.0),
    "top-k": nn.SamplingOptions(top_k=40),
    "top-p": nn.SamplingOptions(top_p=0.9),
    "random": nn.SamplingOptions(),
    "min-p": nn.SamplingOptions(min_p=0.05),
    "typical": nn.SamplingOptions(typical_p=0.9),
    "penalties": nn.SamplingOptions(penalties=nn.Penalties(repetition=1.2)),
}


@dataclass
class Variant:
    """A kernel with its includes and constants; ``uses``: what takes it, and in which grids."""

    name: str
    variant: dict[str, str]
    constants: dict[str, int | float]
    signature: Signature
    uses: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The WGSL with includes."""
        return load_source(self.name, tuple(sorted(self.variant.items())))

    @property
    def label(self) -> str:
        """Name, then includes and constants."""
        parts = [f"{k}={v}" for k, v in self.variant.items()]
        parts += [f"{k}={v:g}" for k, v in self.constants.items()]
        return " ".join([self.name, *parts])

    @property
    def hash(self) -> str:
        """Hash of code and constants; comments and spaces do not count."""
        code = "".join(re.sub(r"//[^\n]*", "", self.source).split())
        text = json.dumps([code, sorted(self.constants.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def wide_bindings(self) -> list[str]:
        """Storage bindings that it reads 16 bytes at a time."""
        return re.findall(r"var<storage(?:, ?read)?>\s*(\w+)\s*:\s*array<vec4<", self.source)


def variants() -> list[Variant]:
    """Return all variants, by their labels."""
    found: dict[Any, Variant] = {}
    for dtype in WEIGHT_FORMATS:
        for model in MODELS:
            for use, works in _uses(model, dtype):
                for work in works:
                    name, variant, constants = work.kernel.pipeline
                    key = (name, variant, constants)
                    if key not in found:
                        found[key] = Variant(
                            name, dict(variant), dict(constants), work.kernel.signature
                        )
                    if use not in found[key].uses:
                        found[key].uses.append(use)
    return sorted(found.values(), key=lambda one: one.label)


def _uses(model: str, dtype: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield what a model does, and the dispatches of it."""
    short, width = WEIGHT_FORMATS[dtype].name, MODELS[model]
    device = PaperDevice(ADAPTER, LIMITS)
    works = device.queue.works  # type: ignore[attr-defined]

    def taken() -> list[Any]:
        new: list[Any] = works[:]
        works.clear()
        return new

    for cache_dtype, rows_of_steps in (("float32", ROWS), ("float16", ROWS[:2])):
        backbone = gw.GPT2Backbone(
            VOCABULARY, 1, width // HEAD, width, 4 * width, dtype=dtype,
            cache_dtype=cache_dtype, device=device,
        )  # fmt: skip
        start = f"{model} {short}"
        yield f"{start} load", taken()
        if cache_dtype == "float16":
            start += ", f16 cache"
        for rows in rows_of_steps:
            _step(backbone, rows, SAMPLERS["greedy"])
            yield f"{start}, {rows} rows", taken()
        for tokens in PROMPTS:
            _prefill(backbone, tokens)
            yield f"{start}, prompt of {tokens}", taken()
        if cache_dtype == "float32" and model == "124M":
            for name, options in SAMPLERS.items():
                _step(backbone, 1, options)
                yield f"{start}, {name}", taken()
        backbone.dispose()


def _step(backbone: gw.GPT2Backbone, rows: int, options: nn.SamplingOptions) -> None:
    with tidy("step"):
        cache = backbone.new_cache(rows, CONTEXT)
        histories = [nn.History([0] * 5, 5)] * rows
        state = nn.SamplingState.create(
            backbone.device, histories, [CONTEXT] * rows, options, [0], VOCABULARY
        )
        x = backbone.blocks(state.token, cache, state.position)
        nn.sample(backbone.head(x, state), state)


def _prefill(backbone: gw.GPT2Backbone, tokens: int) -> None:
    with tidy("prefill"):
        cache = backbone.new_cache(1, CONTEXT)
        backbone.blocks(backbone.as_uint32([[0] * tokens]), cache, backbone.as_uint32([0]))
