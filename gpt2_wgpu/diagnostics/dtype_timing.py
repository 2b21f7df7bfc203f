"""Microbenchmark: GEMV time per weight dtype on this adapter."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

from gpt2_wgpu import nn
from gpt2_wgpu.nn import Raw
from gpt2_wgpu.tensors.tensor import Tensor
from gpt2_wgpu.tensors.tidying import tidy
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.pipelines import load_source
from gpt2_wgpu.webgpu.recording import Recording

OUT_FEATURES, IN_FEATURES = 3072, 768
TIMES = 4  # products per submit, to make its fixed cost negligible
ROUNDS = 10


def kernel_hash() -> str:
    """Return a hash of the timed kernels' source: a remembered timing of another one is stale."""
    plain = ("input", "plain"), ("store", "plain")
    sources = [
        load_source(kernel, (*plain, ("weight", weight)))
        for kernel, weight in (
            ("linear_gemv_cpu", "f16"),
            ("linear_w8a8_gemv_cpu", "q8"),
            ("linear_w8a8_gemv_masked_cpu", "q8"),
        )
    ]
    return f"{zlib.crc32(''.join(sources).encode()):08x}"


async def seconds_of_products(device: Device, dtypes: Sequence[str]) -> dict[str, float]:
    """Return the seconds of one product x Wᵀ, 1 x 768 by 3072 x 768, for each weight dtype.

    The minimum over interleaved rounds, since other load can only add time. Takes about 80 ms on
    two CPU cores once the kernels are compiled.

    Raises:
        OutOfGPUMemoryError: the weights do not fit.
    """

    async def values(begin: int, end: int) -> Tensor:
        return nn.random_normal(device, end - begin, 0.1, 0, 0, begin)

    seconds: dict[str, list[float]] = {dtype: [] for dtype in dtypes}
    recordings = {}
    async with tidy("probe"):
        try:
            for dtype in dtypes:
                weight = await nn.load_matrix(
                    device, Raw(values, "F32", (OUT_FEATURES, IN_FEATURES)), dtype
                )
                x = nn.random_normal(device, IN_FEATURES, 1.0, seed=0, stream=1).view(
                    (1, IN_FEATURES)
                )
                with Recording(device) as recording:
                    recordings[dtype] = recording, nn.linear(x, weight)
            for _ in range(ROUNDS):
                for dtype, (recording, result) in recordings.items():
                    begun = time.perf_counter()
                    recording.replay(TIMES)
                    await device.queue.read([(result.storage, 0, 4)])
                    seconds[dtype].append((time.perf_counter() - begun) / TIMES)
        finally:
            for recording, _ in recordings.values():
                recording.close()
    return {dtype: min(taken) for dtype, taken in seconds.items()}
