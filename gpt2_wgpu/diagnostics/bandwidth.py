"""Peak read bandwidth of an adapter: the upper bound of memory-bound kernels.

Decoding reads all weights for each token with little arithmetic, so its speed is compared with this
bandwidth. It is the maximum of several read-only kernels (``stream_read_*.wgsl``); each must return
the sum of the data, so that no compiler can omit the reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from gpt2_wgpu.errors import NumericalError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty
from gpt2_wgpu.tensors.tidying import tidy
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.recording import Recording
from gpt2_wgpu.webgpu.waiting import sync

KERNELS = ("stream_read_strided", "stream_read_unrolled", "stream_read_contiguous")
# (threads per workgroup, workgroups): from a few CPU cores to a large GPU.
SHAPES = ((64, 64), (64, 1024), (64, 4096), (256, 256), (256, 1024))
PIECE_BYTES = 128 << 20  # guaranteed size of one binding
MAX_BYTES = 512 << 20  # larger than any cache of a GPU
MAX_BYTES_ON_CPU = 256 << 20
FACTOR = 0x9E3779B1  # of stream_pattern.wgsl
MIN_TIMED_S = 0.05  # makes the fixed cost of a submit and a readback negligible
SLOW_RUN_S = 0.5  # a slower run is not repeated


@dataclass(frozen=True)
class ReadRate:
    """Bandwidth of one kernel with one grid."""

    kernel: str
    threads: int  # per workgroup
    workgroups: int
    bytes_per_second: float


@dataclass(frozen=True)
class PeakReadBandwidth:
    """Result of :func:`peak_read_bandwidth`; ``rates``: each kernel's best grid, fastest first."""

    nbytes: int  # read per run
    rates: tuple[ReadRate, ...]

    @property
    def bytes_per_second(self) -> float:
        """Bandwidth of the fastest kernel."""
        return self.rates[0].bytes_per_second


def peak_read_bandwidth(
    device: Device, nbytes: int | None = None, repeats: int = 5
) -> PeakReadBandwidth:
    """Blocking counterpart of :func:`peak_read_bandwidth_async`."""
    return sync(
        peak_read_bandwidth_async(device, nbytes, repeats), "peak_read_bandwidth_async(...)"
    )


async def peak_read_bandwidth_async(
    device: Device, nbytes: int | None = None, repeats: int = 5
) -> PeakReadBandwidth:
    """Measure the peak read bandwidth.

    Each kernel is tried with every grid, and its best one timed ``repeats`` times.

    Args:
        device: the device.
        nbytes: bytes to read; default: more than any cache holds, within the memory budget.
        repeats: timed runs per kernel; the fastest counts.

    Returns:
        The bandwidth of each kernel.

    Raises:
        NumericalError: a kernel does not return the sum of the data.
        OutOfGPUMemoryError: the data do not fit.
    """
    with tidy("peak read bandwidth"):
        pieces = _pieces(device, _size(device) if nbytes is None else nbytes)
        rates = []
        for kernel in KERNELS:
            tried = [await _rate(device, pieces[:1], kernel, *shape, 1) for shape in SHAPES]
            best = max(tried, key=lambda rate: rate.bytes_per_second)
            rates.append(
                await _rate(device, pieces, kernel, best.threads, best.workgroups, repeats)
            )
    device.memory.trim()  # do not keep such large buffers in the pool
    rates.sort(key=lambda rate: -rate.bytes_per_second)
    return PeakReadBandwidth(sum(piece.nbytes for piece in pieces), tuple(rates))


_known: WeakKeyDictionary[Device, float] = WeakKeyDictionary()


async def known_read_bandwidth_async(device: Device) -> float:
    """Return the peak read bandwidth in bytes per second, measured once for each device.

    Errors as of :func:`peak_read_bandwidth_async`.
    """
    if device not in _known:
        _known[device] = (await peak_read_bandwidth_async(device)).bytes_per_second
    return _known[device]


def _size(device: Device) -> int:
    most = MAX_BYTES_ON_CPU if device.info.is_software else MAX_BYTES
    free = device.memory.budget - device.memory.info().num_bytes_in_gpu
    return max(1 << 20, min(most, free // 2)) // 16 * 16


def _pieces(device: Device, nbytes: int) -> list[Tensor]:
    """Return ``nbytes`` (a multiple of 16) of test pattern, in tensors that can be bound."""
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
            first = await _seconds(device, recording, sums, 1)  # also compiles and warms up
            times = max(1, min(64, int(MIN_TIMED_S / first)))
            again = repeats if first < SLOW_RUN_S else 0
            runs = [await _seconds(device, recording, sums, times) for _ in range(again)]
        finally:
            recording.close()
        await _check(device, kernel, pieces, sums)
    nbytes = sum(piece.nbytes for piece in pieces)
    return ReadRate(kernel, threads, workgroups, nbytes / min([first, *runs]))


async def _seconds(device: Device, recording: Recording, sums: list[Tensor], times: int) -> float:
    """Return the seconds per replay, from ``times`` replays in one submit."""
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
                f"{expected}: this device computes wrong numbers, so no speed is shown"
            )


def pattern_sum(count: int) -> int:
    """Return the sum of ``count`` elements of stream_pattern.wgsl, mod 2^32."""
    return FACTOR * (count * (count - 1) // 2) % 2**32
