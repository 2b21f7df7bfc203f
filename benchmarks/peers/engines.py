"""Engines of the comparison, by their names on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers.install import MAIN, WEBGPU


@dataclass(frozen=True)
class Engine:
    """One row of the comparison.

    ``file``: the adapter, a module of ``native/`` or a script of ``browser/``, called with
    ``options``. ``tolerance``: the largest gap, in the reference's logits, between a chosen token
    and the best one; 0: the tokens must equal the reference's. ``note``: conditions of the figure.
    """

    name: str
    label: str
    backend: str
    file: str
    dtype: str = "f32"
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0
    note: str = ""
    environment: str = MAIN
    cuda: bool = False  # runs only where PyTorch finds an NVIDIA GPU
    batches: bool = True  # whether it takes several prompts at a time


def _ours(backend: str, file: str) -> list[Engine]:
    """Return the rows of this project: one per weight dtype."""
    return [
        Engine(
            f"gpt2-wgpu-{short}",
            "gpt2-wgpu",
            backend,
            file,
            short,
            {"dtype": dtype},
            tolerance,
            note="starts from text; several tokens per submit",
        )
        for short, dtype, tolerance in (
            ("f32", "float32", 0.0),
            ("f16", "float16", 0.05),
            ("q8", "q8", 2.0),
        )
    ]


_TORCH = "model.generate"
_FUSED = "hand-made graph with fused attention; argmax outside the graph"
_PLAIN = "hand-made graph, attention in standard operators; argmax outside the graph"

NATIVE = [
    *_ours("WebGPU", "ours"),
    Engine("torch", "transformers", "CPU", "torch_transformers", note=_TORCH),
    Engine(
        "torch-compile",
        "transformers, compiled",
        "CPU",
        "torch_transformers",
        options={"compile": True},
        note=f"{_TORCH}, torch.compile, static cache",
    ),
    Engine("onnxruntime", "onnxruntime", "CPU", "onnx_runtime", note=_FUSED),
    Engine(
        "onnxruntime-webgpu",
        "onnxruntime",
        "WebGPU",
        "onnx_runtime",
        options={"provider": "WebGpuExecutionProvider"},
        note=f"{_FUSED}; fallback to the CPU off",
        environment=WEBGPU,
    ),
    Engine(
        "onnxruntime-webgpu-plain",
        "onnxruntime, plain graph",
        "WebGPU",
        "onnx_runtime",
        options={"provider": "WebGpuExecutionProvider", "graph": "model_plain"},
        note=f"{_PLAIN}; fallback to the CPU off",
        environment=WEBGPU,
    ),
    Engine("ctranslate2", "CTranslate2", "CPU", "ct2", note="generate_batch"),
    Engine(
        "llama.cpp",
        "llama.cpp",
        "CPU",
        "llama_cpp",
        tolerance=0.05,  # GELU by an f16 lookup table
        note="llama_decode of llama-cpp-python; cache in f32, GELU from a table of f16",
    ),
    Engine(
        "tinygrad",
        "tinygrad",
        "WebGPU",
        "tiny",
        note="TinyJit step as in its GPT-2 example; rows of wte from the host",
    ),
    Engine(
        "torch-cuda",
        "transformers",
        "CUDA",
        "torch_transformers",
        options={"device": "cuda"},
        note=_TORCH,
        cuda=True,
    ),
    Engine(
        "torch-cuda-graphs",
        "transformers, CUDA graphs",
        "CUDA",
        "torch_transformers",
        options={"device": "cuda", "compile": True},
        note=f"{_TORCH}, torch.compile reduce-overhead, static cache",
        cuda=True,
    ),
]

BROWSER = [
    *_ours("WebGPU", "ours"),
    Engine("tfjs", "TF.js", "WebGPU", "tfjs", note="a plain GPT-2 in its ops, cache by concat"),
    Engine(
        "onnxruntime-web",
        "onnxruntime-web",
        "WebGPU",
        "onnx_runtime",
        options={"provider": "webgpu", "hideSubgroups": True},
        note=f"{_FUSED}; cache stays on the GPU; subgroups hidden from it",
    ),
    Engine(
        "onnxruntime-web-plain",
        "onnxruntime-web, plain graph",
        "WebGPU",
        "onnx_runtime",
        options={"provider": "webgpu", "hideSubgroups": True, "graph": "model_plain"},
        note=f"{_PLAIN}; cache stays on the GPU; subgroups hidden from it",
    ),
    Engine(
        "onnxruntime-web-wasm",
        "onnxruntime-web",
        "WASM",
        "onnx_runtime",
        options={"provider": "wasm"},
        note=_FUSED,
    ),
    Engine(
        "transformers.js",
        "transformers.js",
        "WebGPU",
        "transformers_js",
        options={"device": "webgpu", "hideSubgroups": True, "graph": "model_plain"},
        note="model.generate on onnxruntime-web's plain graph; subgroups hidden from it",
    ),
    Engine(
        "transformers.js-wasm",
        "transformers.js",
        "WASM",
        "transformers_js",
        options={"device": "wasm"},
        note="model.generate on onnxruntime-web's graph",
    ),
    Engine(
        "wllama",
        "wllama",
        "WASM",
        "wllama",
        tolerance=0.05,  # llama.cpp computes GELU by an f16 lookup table
        note="createCompletion; cache in f32, GELU from a table of f16",
        batches=False,
    ),
]

# Without "Firefox" in its user agent the library takes it for another browser.
_AGENT = "general.useragent.override"
FIREFOX = [
    *BROWSER,
    Engine(
        "gpt2-wgpu-f32-no-submits",
        "gpt2-wgpu, no empty submits",
        "WebGPU",
        "ours",
        options={"dtype": "float32", "preferences": {_AGENT: "Mozilla/5.0 Gecko/20100101"}},
        note="without the empty submits by which Firefox sees finished work sooner",
    ),
]


def chosen(all_engines: list[Engine], names: str | None, cuda: bool, batch: int) -> list[Engine]:
    """Return the engines in ``names`` (comma separated); None: all that can run here.

    Raises ``SystemExit`` for an unknown one, and for one that takes one prompt only if ``batch`` is
    larger.
    """
    if names is None:
        able = [engine for engine in all_engines if cuda or not engine.cuda]
        return [engine for engine in able if engine.batches or batch == 1]
    by_name = {engine.name: engine for engine in all_engines}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        raise SystemExit(f"no engine {', '.join(unknown)}; there are {', '.join(by_name)}")
    found = [by_name[name] for name in names.split(",")]
    single = [engine.name for engine in found if not engine.batches]
    if single and batch > 1:
        raise SystemExit(f"{', '.join(single)}: one prompt at a time here, so no batch of {batch}")
    return found
