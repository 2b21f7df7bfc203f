"""LoRA adapters merged into a model's matrices while they are loaded.

One matrix after the other is brought to the GPU in f32, with the product of the adapter's matrices
added there; it is then stored like one of a checkpoint. Memory of the host stays as without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.gpt2_weights import Fetch, OpenWeights
from gpt2_wgpu.nn import Matrix, Raw, load_matrix
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.webgpu import Device
from gpt2_wgpu.weights.lora import AdapterBytes, LoraAdapter, LoraModule


def with_adapters(
    config: GPT2Config,
    open_weights: OpenWeights,
    adapters: Sequence[tuple[Path | AdapterBytes, float]],
) -> OpenWeights:
    """Return ``open_weights`` with adapters (files, weight) merged into what it fetches.

    WeightsError for adapters that do not fit the model of ``config``.
    """
    if not adapters:
        return open_weights
    shapes = config.expected_tensors()
    for files, weight in adapters:
        with LoraAdapter(files, weight) as adapter:
            adapter.check(shapes)

    @contextmanager
    def opened(device: Device, dtype: str) -> Iterator[Fetch]:
        with ExitStack() as opened_files, open_weights(device, dtype) as fetch:
            found = [opened_files.enter_context(LoraAdapter(*adapter)) for adapter in adapters]
            for adapter in found:
                adapter.check(shapes)
            yield _merging(device, fetch, found)

    return opened


def _merging(device: Device, fetch: Fetch, adapters: Sequence[LoraAdapter]) -> Fetch:
    last: list[Tensor] = []  # stored in the model's format by now

    async def merged(name: str) -> Raw:
        while last:
            last.pop().dispose()
        raw = await fetch(name)
        deltas = [
            (adapter, adapter.modules[name]) for adapter in adapters if name in adapter.modules
        ]
        if not deltas:
            return raw
        if raw.dtype == "U32":
            raise WeightsError(
                f"{deltas[0][0].where}: an adapter cannot be merged into quantised weights: "
                "load the original checkpoint, with dtype for the format on the GPU"
            )
        with tidy() as scope:
            weight = _whole(await load_matrix(device, raw, "float32", transpose=not raw.transposed))
            for adapter, module in deltas:
                weight = weight + await _delta(device, adapter, module) * module.scale
            shape = (weight.shape[0], deltas[0][1].a.shape[1])
            weight = scope.escape(ops.slice(weight, (0, 0), shape))
        last.append(weight)

        async def words(begin: int, end: int) -> Tensor:
            return ops.slice(weight.view((weight.size,)), (begin,), (end - begin,))

        return Raw(words, "F32", shape, transposed=True)

    return merged


async def _delta(device: Device, adapter: LoraAdapter, module: LoraModule) -> Tensor:
    """Return B A [out_features, in_features padded to 8]."""
    a, b = [
        _whole(
            await load_matrix(device, Raw(adapter.read(entry), entry.dtype, entry.shape), "float32")
        )
        for entry in (module.a, module.b)
    ]
    return ops.matmul(ops.slice(b, (0, 0), module.b.shape), a)


def _whole(matrix: Matrix) -> Tensor:
    """Return the tensor of a matrix [out_features, in_features padded to 8]."""
    parts = [part for _, part in matrix.parts]
    return parts[0] if len(parts) == 1 else ops.concat(parts, 0)
