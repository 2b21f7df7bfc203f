"""How fast this adapter streams memory: what no kernel that reads weights once can exceed.

Decoding reads every weight for each token and computes next to nothing with it, so its speed is
judged by this. The best of a few kernels that do nothing but read counts (``stream_read_*.wgsl``);
each must return the sum of what it was to read, or a compiler might have left the reading out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from gpt2_wgpu.errors import NumericalError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.recording import Recording
from gpt2_wgpu.webgpu.waiting import sync

KERNELS = ("stream_read_strided", "stream_read_unrolled", "stream_read_contiguous")
# Threads of a workgroup, workgroups: from what suits a few CPU cores to what fills a large GPU.
SHAPES = ((64, 64), (64, 1024), (64, 4096), (256, 256), (256, 1024))
PIECE_BYTES = 128 << 20  # what one binding may always hold
MOST_BYTES = 512 << 20  # beyond any cache of a GPU
MOST_BYTES_ON_CPU = 256 << 20
FACTOR = 0x9E3779B1  # of stream_pattern.wgsl
WORTH_TIMING = 0.05  # seconds: beside it the fixed cost of a submit and a read is small
HOPELESS = 0.5  # seconds of a run that is not repeated


@dataclass(frozen=True)
class ReadRate:
    """One kernel in one shape."""

    kernel: str
    threads: int  # of a workgroup
    workgroups: int
    bytes_per_second: float


@dataclass(frozen=True)
class ReadLimit:
    """What :func:`read_limit` found; ``rates`` has the best shape of each kernel, fastest first."""

    nbytes: int  # read by each run
    rates: tuple[ReadRate, ...]

    @property
    def bytes_per_second(self) -> float:
        return self.rates[0].bytes_per_second


def read_limit(device: Device, nbytes: int | None = None, repeats: int = 5) -> ReadLimit:
    """The blocking form of :func:`read_limit_async`."""
    return sync(read_limit_async(device, nbytes, repeats), "read_limit_async(...)")


async def read_limit_async(
    device: Device, nbytes: int | None = None, repeats: int = 5
) -> ReadLimit:
    """Reads ``nbytes`` (default: what no cache holds, if the memory budget allows) by each kernel.

    Each is tried in every shape, its best shape then timed ``repeats`` times; the fastest counts.
    Raises ``NumericalError`` when a kernel does not return the sum, ``OutOfGPUMemoryError``.
    """
    with tidy("read limit"):
        pieces = _pieces(device, _size(device) if nbytes is None else nbytes)
        rates = []
        for kernel in KERNELS:
            tried = [await _rate(device, pieces[:1], kernel, *shape, 1) for shape in SHAPES]
            best = max(tried, key=lambda rate: rate.bytes_per_second)
            rates.append(
                await _rate(device, pieces, kernel, best.threads, best.workgroups, repeats)
            )
    device.memory.trim()  # so large a buffer is of no use to anyone else
    rates.sort(key=lambda rate: -rate.bytes_per_second)
    return ReadLimit(sum(piece.nbytes for piece in pieces), tuple(rates))


def _size(device: Device) -> int:
    most = MOST_BYTES_ON_CPU if device.info.is_software else MOST_BYTES
    free = device.memory.budget - device.memory.info().num_bytes_in_gpu
    return max(1 << 20, min(most, free // 2)) // 16 * 16


def _pieces(device: Device, nbytes: int) -> list[Tensor]:
    """``nbytes`` (a multiple of 16) of pattern, in tensors that can be bound."""
    device.memory.check_fits(nbytes, "the bytes to read")
    most = min(PIECE_BYTES, device.capabilities.max_binding // 16 * 16)
    pieces = []
    for first in range(0, nbytes, most):
        piece = empty(device, (min(most, nbytes - first) // 4,), "uint32")
        count = piece.size // 4
        dispatch(
            device, "stream_pattern", groups_for(count, 64), {"result": piece}, {"count": count}
        )
        pieces.append(piece)
    return pieces


async def _rate(
    device: Device,
    pieces: list[Tensor],
    kernel: str,
    threads: int,
    workgroups: int,
    repeats: int,
) -> ReadRate:
    with tidy(kernel):
        sums = [empty(device, (threads * workgroups,), "uint32") for _ in pieces]
        with Recording(device) as recording:
            for piece, result in zip(pieces, sums, strict=True):
                dispatch(
                    device,
                    kernel,
                    (workgroups, 1, 1),
                    {"data": piece, "result": result},
                    {"count": piece.size // 4},
                    constants={"WORKGROUP": threads},
                )
        try:
            first = await _seconds(device, recording, sums, 1)  # compiles and warms up, too
            times = max(1, min(64, int(WORTH_TIMING / first)))
            again = repeats if first < HOPELESS else 0
            runs = [await _seconds(device, recording, sums, times) for _ in range(again)]
        finally:
            recording.close()
        await _check(device, kernel, pieces, sums)
    nbytes = sum(piece.nbytes for piece in pieces)
    return ReadRate(kernel, threads, workgroups, nbytes / min([first, *runs]))


async def _seconds(device: Device, recording: Recording, sums: list[Tensor], times: int) -> float:
    """Of one replay, from ``times`` in one submit."""
    begun = time.perf_counter()
    recording.replay(times)
    await device.queue.read([(sums[-1].storage, 0, 4)])
    return (time.perf_counter() - begun) / times


async def _check(device: Device, kernel: str, pieces: list[Tensor], sums: list[Tensor]) -> None:
    for piece, result in zip(pieces, sums, strict=True):
        got = sum((await result.data()).cast("B").cast("I")) % 2**32
        expected = pattern_sum(piece.size)
        if got != expected:
            raise NumericalError(
                f"{kernel} on {device.info.name} sums {piece.nbytes:,} bytes to {got}, not to "
                f"{expected}: this device computes wrong numbers, so it has no speed"
            )


def pattern_sum(count: int) -> int:
    """The sum of ``count`` elements of stream_pattern.wgsl, mod 2^32."""
    return FACTOR * (count * (count - 1) // 2) % 2**32
