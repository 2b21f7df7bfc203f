"""GPT-2's parameters on the GPU, under Hugging Face's names."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2_wgpu.gpu import Tensor, keep, tidy
from gpt2_wgpu.gpu.layers import (
    Axis,
    Matrix,
    Raw,
    load_matrix,
    load_vector,
    random_normal,
    round_up,
)
from gpt2_wgpu.gpu.layers.weights import STAGED_BYTES
from gpt2_wgpu.gpu.memory import size_class
from gpt2_wgpu.weights.naming import resolve

if TYPE_CHECKING:
    from gpt2_wgpu.gpu import Device
    from gpt2_wgpu.models.config import GPT2Config
    from gpt2_wgpu.weights.checkpoint import WeightSource

Fetch = Callable[[str], Awaitable[Raw]]  # may wait, for a network or a disk
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Linear:
    weight: Matrix  # [outputs, inputs]: transposed from the checkpoint's Conv1D
    bias: Tensor


@dataclass(frozen=True)
class LayerNorm:
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Block:
    ln_1: LayerNorm
    c_attn: Linear
    attn_c_proj: Linear
    ln_2: LayerNorm
    c_fc: Linear
    mlp_c_proj: Linear


@dataclass(frozen=True)
class GPT2Weights:
    """All parameters. Sizes are padded to multiples of eight, heads one by one.

    Padding is zero everywhere, so padded activations stay zero and no kernel needs a special case;
    only LayerNorm has to know the true width.
    """

    wte: Matrix  # [V, D]
    wpe: Tensor  # [P, D]
    blocks: tuple[Block, ...]
    ln_f: LayerNorm
    lm_head: Matrix  # [V, D]; wte itself when tied


async def load_weights(device: Device, config: GPT2Config, fetch: Fetch, dtype: str) -> GPT2Weights:
    """Bring every tensor of ``config.expected_tensors()`` to the GPU.

    ``await fetch(name)`` gives a tensor as the checkpoint stores it. Matrices become ``dtype``;
    biases, norms and positions stay f32. A raise leaves nothing allocated; ``OutOfGPUMemoryError``
    comes before the first tensor is fetched.
    """
    width, inner = config.n_embd, config.intermediate_dim
    stream = Axis(width, width, round_up(width, 8))
    hidden = Axis(inner, inner, round_up(inner, 8))
    head, padded_head = config.head_dim, round_up(config.head_dim, 8)
    heads = Axis(width, head, padded_head)

    async def norm(name: str) -> LayerNorm:
        weight, bias = await fetch(f"{name}.weight"), await fetch(f"{name}.bias")
        return LayerNorm(
            await load_vector(device, weight, axis=stream),
            await load_vector(device, bias, axis=stream),
        )

    async def conv1d(name: str, outputs: Axis, inputs: Axis) -> Linear:
        raw = await fetch(f"{name}.weight")
        weight = await load_matrix(
            device, raw, dtype, transpose=True, outputs=outputs, inputs=inputs
        )
        bias = await load_vector(device, await fetch(f"{name}.bias"), axis=outputs)
        return Linear(weight, bias)

    async def block(i: int) -> Block:
        return Block(
            ln_1=await norm(f"h.{i}.ln_1"),
            c_attn=await conv1d(f"h.{i}.attn.c_attn", Axis(3 * width, head, padded_head), stream),
            attn_c_proj=await conv1d(f"h.{i}.attn.c_proj", stream, heads),
            ln_2=await norm(f"h.{i}.ln_2"),
            c_fc=await conv1d(f"h.{i}.mlp.c_fc", hidden, stream),
            mlp_c_proj=await conv1d(f"h.{i}.mlp.c_proj", stream, hidden),
        )

    needed = stored_bytes(config, dtype) + staged_bytes(config)
    device.memory.check_fits(needed, f"the weights in {dtype}, uploads included")
    with tidy("load weights"):
        wte = await load_matrix(device, await fetch("wte.weight"), dtype)
        positions = await load_matrix(device, await fetch("wpe.weight"), "float32")
        ((_, wpe),) = positions.parts
        lm_head = wte
        if not config.tie_word_embeddings:
            lm_head = await load_matrix(device, await fetch("lm_head.weight"), dtype)
        blocks = [await block(i) for i in range(config.n_layer)]
        weights = GPT2Weights(wte, wpe, tuple(blocks), await norm("ln_f"), lm_head)
        device.queue.flush()
        device.memory.trim()  # what the uploads went through is of no use afterwards
        return keep(weights)


def stored_bytes(config: GPT2Config, dtype: str) -> int:
    """Bytes that the weights take on the GPU, padding included: known before the first is read."""
    padded = {
        config.n_embd: round_up(config.n_embd, 8),
        config.intermediate_dim: round_up(config.intermediate_dim, 8),
        3 * config.n_embd: 3 * config.n_head * round_up(config.head_dim, 8),
    }

    def stored(name: str, shape: tuple[int, ...]) -> int:
        elements = math.prod(padded.get(size, size) for size in shape)
        small = dtype == "float16" and len(shape) == 2 and name != "wpe.weight"
        return size_class(elements * (2 if small else 4))

    return sum(stored(name, shape) for name, shape in config.expected_tensors().items())


def staged_bytes(config: GPT2Config) -> int:
    """Bytes that uploads take besides, at most: the largest piece, as F32."""
    pieces = (
        4 * math.prod(shape) if name.startswith("h.") else min(4 * math.prod(shape), STAGED_BYTES)
        for name, shape in config.expected_tensors().items()
    )
    return size_class(max(pieces))


def stored_fetch(
    source: WeightSource, config: GPT2Config, on_progress: Progress | None = None
) -> Fetch:
    """A ``fetch`` from a checkpoint, whose tensors are checked against ``config`` first.

    ``on_progress(done_bytes, total_bytes)`` is called with each tensor.
    """
    entries = resolve(source, config.expected_tensors())
    total = sum(entry.nbytes for entry in entries.values())
    done = 0

    async def fetch(name: str) -> Raw:
        nonlocal done
        entry = entries[name]
        done += entry.nbytes
        if on_progress is not None:
            on_progress(done, total)
        return Raw(source.read(entry.name), entry.dtype, entry.shape)

    return fetch


def random_fetch(device: Device, config: GPT2Config, stddev: float, seed: int) -> Fetch:
    """A ``fetch`` of random weights, as GPT-2 was initialised: N(0, stddev²), norms 1, biases 0."""
    names = list(config.expected_tensors().items())
    streams = {name: index for index, (name, _) in enumerate(names)}
    shapes = dict(names)

    async def fetch(name: str) -> Raw:
        shape = shapes[name]
        if name.endswith("bias"):
            return Raw(memoryview(bytes(4 * shape[0])), "F32", shape)
        if len(shape) == 1:
            return Raw(memoryview(b"\x00\x00\x80\x3f" * shape[0]), "F32", shape)  # 1.0

        async def values(begin: int, end: int) -> Tensor:
            return random_normal(device, end - begin, stddev, seed, streams[name], begin)

        return Raw(values, "F32", shape)

    return fetch
