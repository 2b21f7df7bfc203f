"""Read-only kernels against NumPy, and the peak read bandwidth."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.diagnostics import peak_read_bandwidth, peak_read_bandwidth_async
from gpt2_wgpu.diagnostics.bandwidth import KERNELS, SHAPES, pattern_sum
from gpt2_wgpu.errors import NumericalError, OutOfGPUMemoryError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import empty

pytestmark = pytest.mark.native("NumPy")

FACTOR = 0x9E3779B1


def pattern(count):
    return (np.arange(count, dtype=np.uint64) * FACTOR % 2**32).astype(np.uint32)


def strided(words, threads):
    sums = words.reshape(-1, 4).sum(1, dtype=np.uint64)
    return np.array([sums[t::threads].sum() % 2**32 for t in range(threads)])


def contiguous(words, threads):
    sums = words.reshape(-1, 4).sum(1, dtype=np.uint64)
    length = -(-len(sums) // threads)
    stretches = [sums[t * length : (t + 1) * length] for t in range(threads)]
    return np.array([stretch.sum() % 2**32 for stretch in stretches])


REFERENCES = {
    "stream_read_strided": strided,
    "stream_read_unrolled": strided,
    "stream_read_contiguous": contiguous,
}


def test_every_kernel_has_a_reference():
    assert REFERENCES.keys() == {*KERNELS}


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("threads", "workgroups"), [(64, 3), (256, 1)])
@pytest.mark.parametrize("count", [1, 191, 193, 1537, 5000])
def test_each_thread_sums_its_share(device, kernel, threads, workgroups, count):
    words = np.random.default_rng(count).integers(0, 2**32, 4 * count, np.uint32)
    with gw.tidy():
        result = empty(device, (threads * workgroups,), "uint32")
        dispatch(
            device,
            kernel,
            (workgroups, 1, 1),
            {"data": gw.tensor(words, "uint32"), "result": result},
            {"count": count},
            constants={"WORKGROUP": threads},
        )
        expected = REFERENCES[kernel](words, threads * workgroups)
        np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.usefixtures("guarded", "narrow_grid")
@pytest.mark.parametrize("count", [1, 63, 64, 65, 3000])
def test_the_pattern_and_its_sum(device, count):
    with gw.tidy():
        words = empty(device, (4 * count,), "uint32")
        dispatch(
            device, "stream_pattern", groups_for(count, 64), {"result": words}, {"count": count}
        )
        np.testing.assert_array_equal(words.numpy(), pattern(4 * count))
    assert pattern_sum(4 * count) == int(pattern(4 * count).sum(dtype=np.uint64)) % 2**32


@pytest.mark.usefixtures("no_leak")
def test_the_limit_is_the_fastest_kernel(device):
    limit = peak_read_bandwidth(device, nbytes=(1 << 20) + 16, repeats=2)
    assert limit.nbytes == (1 << 20) + 16
    assert {rate.kernel for rate in limit.rates} == {*KERNELS}
    assert all((rate.threads, rate.workgroups) in SHAPES for rate in limit.rates)
    speeds = [rate.bytes_per_second for rate in limit.rates]
    assert speeds == sorted(speeds, reverse=True)
    assert limit.bytes_per_second == speeds[0]
    assert 1e6 < speeds[0] < 1e14


@pytest.mark.usefixtures("no_leak")
def test_more_than_one_binding_holds(device, monkeypatch):
    monkeypatch.setattr("gpt2_wgpu.diagnostics.bandwidth.PIECE_BYTES", 1 << 18)
    limit = asyncio.run(peak_read_bandwidth_async(device, nbytes=(1 << 20) + (1 << 17), repeats=1))
    assert limit.nbytes == (1 << 20) + (1 << 17)


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_that_reads_too_little_has_no_speed(device, monkeypatch, kernel):
    def halved(device, name, grid, bindings, params, **options):
        if name == kernel:
            params = {"count": params["count"] // 2}
        dispatch(device, name, grid, bindings, params, **options)

    monkeypatch.setattr("gpt2_wgpu.diagnostics.bandwidth.dispatch", halved)
    with pytest.raises(NumericalError, match=f"{kernel} on .* sums 65,536 bytes to"):
        peak_read_bandwidth(device, nbytes=1 << 16, repeats=1)


@pytest.mark.usefixtures("no_leak")
def test_the_budget_bounds_it(device, monkeypatch):
    with pytest.raises(OutOfGPUMemoryError):
        peak_read_bandwidth(device, nbytes=1 << 50)
    monkeypatch.setattr(device.memory, "budget", device.memory.info().num_bytes_in_gpu + (6 << 20))
    assert peak_read_bandwidth(device, repeats=1).nbytes == 3 << 20
