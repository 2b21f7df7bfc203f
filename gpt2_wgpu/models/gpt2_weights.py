"""GPT-2's parameters on the GPU, under Hugging Face's names."""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.weight_sizes import layouts, quantized_shapes, staged_bytes, stored_bytes
from gpt2_wgpu.nn import (
    Block,
    LayerNorm,
    Linear,
    Matrix,
    Raw,
    fold_norm,
    load_matrix,
    load_vector,
    random_normal,
    w8a8,
)
from gpt2_wgpu.nn.matrix import SOURCE_BYTES
from gpt2_wgpu.tensors import Tensor, keep, tidy
from gpt2_wgpu.tensors.creation import tensor_of_blob
from gpt2_wgpu.webgpu import Device
from gpt2_wgpu.weight_formats import check_weight_format
from gpt2_wgpu.weights.checkpoint import BlobRange, WeightSource
from gpt2_wgpu.weights.naming import resolve
from gpt2_wgpu.weights.quantized import quantization_of
from gpt2_wgpu.weights.tied_head import differing_head

Fetch = Callable[[str], Awaitable[Raw]]  # may wait, for a network or a disk
# Weights on a device, in a dtype: a context, since files are open while they are fetched.
OpenWeights = Callable[["Device", str], AbstractContextManager[Fetch]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GPT2Weights:
    """All parameters, with sizes padded to multiples of eight, separately for each head.

    Padding is zero, so that padded activations stay zero and kernels need no special case; only
    LayerNorm needs the true width.
    """

    wte: Matrix  # [V, D]
    wpe: Matrix  # [P, D] in float32
    blocks: tuple[Block, ...]
    ln_f: LayerNorm
    lm_head: Matrix  # [V, D]; wte itself when tied
    head_folded: Tensor  # lm_head with ln_f: layers.fold_norm


async def load_weights(device: Device, config: GPT2Config, fetch: Fetch, dtype: str) -> GPT2Weights:
    """Upload all tensors of ``config.expected_tensors()``, and confirm that there is memory.

    ``await fetch(name)`` returns a tensor in the checkpoint's format. Matrices are converted to
    ``dtype``; biases, norms and position embeddings stay f32. After an exception no memory stays
    allocated; OutOfGPUMemoryError is raised before the first tensor is fetched.
    """
    with tidy("load weights"):
        weights = await issue_weights(device, config, fetch, dtype)
        device.queue.flush()
        await device.check_errors(*_needed(device, config, dtype))
        device.memory.trim()  # the staging buffers are not needed any more
        return keep(weights)


def _needed(device: Device, config: GPT2Config, dtype: str) -> tuple[str, int]:
    """Return a description, for messages, and the bytes that loading the weights needs."""
    stored = stored_bytes(config, dtype, device.capabilities.max_binding)
    return f"the weights in {dtype}, uploads included", stored + staged_bytes(config)


async def issue_weights(
    device: Device, config: GPT2Config, fetch: Fetch, dtype: str
) -> GPT2Weights:
    """As :func:`load_weights`, without waiting for the GPU.

    The tensors belong to the open scope. In browsers a lack of memory is raised by the next read.
    """
    check_weight_format(dtype)
    layout_of = layouts(config)
    # All of a model's products or none: a sum in another order, of which f32 makes another last
    # bit, could round an activation to the next level behind it.
    round_activations = all(
        w8a8.possible(layout.padded_in_features) for layout in layout_of.values() if layout.chosen
    )

    async def matrix(name: str) -> Matrix:
        layout, raw = layout_of[name], await fetch(name)
        return await load_matrix(
            device,
            raw,
            dtype if layout.chosen else "float32",
            transpose=layout.transpose and not raw.transposed,
            out_features=layout.out_features,
            in_features=layout.in_features,
            round_activations=round_activations,
        )

    async def vector(name: str) -> Tensor:
        return await load_vector(device, await fetch(name), axis=layout_of[name].out_features)

    async def norm(name: str) -> LayerNorm:
        return LayerNorm(await vector(f"{name}.weight"), await vector(f"{name}.bias"))

    async def conv1d(name: str, norm: LayerNorm | None = None) -> Linear:
        weight, bias = await matrix(f"{name}.weight"), await vector(f"{name}.bias")
        folded = None if norm is None else fold_norm(norm.weight, norm.bias, weight, bias)
        return Linear(weight, bias, folded)

    async def block(i: int) -> Block:
        ln_1, ln_2 = await norm(f"h.{i}.ln_1"), await norm(f"h.{i}.ln_2")
        return Block(
            ln_1=ln_1,
            c_attn=await conv1d(f"h.{i}.attn.c_attn", ln_1),
            attn_c_proj=await conv1d(f"h.{i}.attn.c_proj"),
            ln_2=ln_2,
            c_fc=await conv1d(f"h.{i}.mlp.c_fc", ln_2),
            mlp_c_proj=await conv1d(f"h.{i}.mlp.c_proj"),
        )

    what, needed = _needed(device, config, dtype)
    device.memory.check_fits(needed, what)
    device.memory.trim()  # free the pooled memory for them
    with tidy("load weights") as scope:
        wte = await matrix("wte.weight")
        wpe = await matrix("wpe.weight")
        lm_head = wte if config.tie_word_embeddings else await matrix("lm_head.weight")
        blocks = [await block(i) for i in range(config.n_layer)]
        ln_f = await norm("ln_f")
        head_folded = fold_norm(ln_f.weight, ln_f.bias, lm_head)
        weights = GPT2Weights(wte, wpe, tuple(blocks), ln_f, lm_head, head_folded)
        return scope.escape(weights)


def stored_fetch(
    device: Device,
    source: WeightSource,
    config: GPT2Config,
    dtype: str,
    on_progress: Progress | None = None,
) -> Fetch:
    """Return a ``fetch`` from a checkpoint, whose tensors are first checked against ``config``.

    ``on_progress(done_bytes, total_bytes)`` is called with each tensor. WeightsError for a
    checkpoint that does not match, or has quantised weights of another ``dtype``.
    """
    check_weight_format(dtype)
    stored = quantization_of(source)
    if stored not in (None, dtype):
        raise WeightsError(
            f"{source.where} holds weights in {stored}, which cannot become {dtype}: load them as "
            f"{stored}, or convert the original checkpoint"
        )
    quantized = {} if stored is None else quantized_shapes(config, stored)
    entries = resolve(source, config.expected_tensors() | quantized, quantized)
    total = sum(entry.nbytes for entry in entries.values())
    done = 0

    async def fetch(name: str) -> Raw:
        nonlocal done
        if name not in entries:  # a bias of a model without biases
            return zeros(config.expected_tensors()[name])
        entry = entries[name]
        done += entry.nbytes
        if on_progress is not None:
            on_progress(done, total)
        data = source.read(entry.name)
        if isinstance(data, BlobRange):
            words = _words_of(device, data, SOURCE_BYTES[entry.dtype], source.where)
            return Raw(words, entry.dtype, entry.shape, entry.transposed)
        return Raw(data, entry.dtype, entry.shape, entry.transposed)

    return fetch


def _words_of(
    device: Device, place: BlobRange, item: int, where: str
) -> Callable[[int, int], Awaitable[Tensor]]:
    """Return a function that uploads elements [begin, end), of ``item`` bytes each, of a blob."""

    async def words(begin: int, end: int) -> Tensor:
        first = place.begin
        try:
            return await tensor_of_blob(
                device, place.blob, first + begin * item, first + end * item
            )
        except OSError as error:
            raise WeightsError(
                f"{where}: its weights cannot be read any more ({error}): have they been changed "
                "or deleted since? load the model again"
            ) from None

    return words


def zeros(shape: tuple[int, ...]) -> Raw:
    """Return a bias that is missing in the checkpoint."""
    return Raw(memoryview(bytes(4 * math.prod(shape))), "F32", shape)


async def as_stored(
    config: GPT2Config, dtype: str | None, source: WeightSource
) -> tuple[GPT2Config, str | None]:
    """Return ``config`` by `with_stored_head`, and ``dtype`` or the stored one."""
    return await with_stored_head(config, source), dtype or quantization_of(source)


async def with_stored_head(config: GPT2Config, source: WeightSource) -> GPT2Config:
    """Return ``config`` with untied embeddings if the source's head differs from its embedding.

    Warns:
        UserWarning: they differ.
    """
    if not config.tie_word_embeddings:
        return config
    difference = await differing_head(source)
    if difference is None:
        return config
    warnings.warn(difference, stacklevel=2)
    return replace(config, tie_word_embeddings=False)


def random_fetch(device: Device, config: GPT2Config, stddev: float, seed: int) -> Fetch:
    """Return a ``fetch`` of GPT-2's random initialisation: N(0, stddev²), norms 1, biases 0."""
    names = list(config.expected_tensors().items())
    streams = {name: index for index, (name, _) in enumerate(names)}
    shapes = dict(names)

    async def fetch(name: str) -> Raw:
        shape = shapes[name]
        if name.endswith("bias"):
            return zeros(shape)
        if len(shape) == 1:
            return Raw(memoryview(b"\x00\x00\x80\x3f" * shape[0]), "F32", shape)  # 1.0

        async def values(begin: int, end: int) -> Tensor:
            return random_normal(device, end - begin, stddev, seed, streams[name], begin)

        return Raw(values, "F32", shape)

    return fetch
