"""``profile``: a row per dispatch, bytes and peak memory, for any function."""

from __future__ import annotations

import asyncio

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.diagnostics.profiling import QUERIES
from gpt2_wgpu.errors import BusyError
from gpt2_wgpu.webgpu.storage import size_class
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")


def new(size=64):
    return gw.tensor([1.0] * size)


def test_a_row_for_each_dispatch(device):
    a = gw.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    b = gw.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = gw.profile(lambda: gw.tidy(lambda: gw.ops.relu(a @ b)))
    assert len(found.rows) == 2
    product, relu = found.rows
    assert "matmul" in product.kernel and relu.kernel == "activate"
    assert {(2, 3), (3, 2), (2, 2)} == set(product.shapes.values())
    assert set(relu.shapes.values()) == {(2, 2)}
    assert all(min(row.workgroups) >= 1 for row in found.rows)
    if "timestamp-query" in device.features:
        seconds = [row.seconds for row in found.rows if row.seconds is not None]
        assert len(seconds) == 2 and all(0 <= part < 60 for part in seconds)
        assert found.seconds is not None and sum(seconds) <= found.seconds
    else:
        assert all(row.seconds is None for row in found.rows)
    assert found.seconds > 0
    gw.dispose([a, b, found.result])


def test_without_timestamps_the_rows_have_no_seconds(device, monkeypatch):
    x = new()
    monkeypatch.setattr(device, "features", device.features - {"timestamp-query"})
    found = gw.profile(lambda: x + x)
    assert [row.seconds for row in found.rows] == [None]
    assert found.by_kernel() == {"binary": (1, None)}
    gw.dispose([x, found.result])


def test_totals_of_each_kernel():
    x = new()
    found = gw.profile(lambda: gw.tidy(lambda: [gw.ops.relu(x + x) for _ in range(3)]))
    totals = found.by_kernel()
    assert {name: count for name, (count, _) in totals.items()} == {"binary": 3, "activate": 3}
    for kernel, (_, seconds) in totals.items():
        rows = [row.seconds for row in found.rows if row.kernel == kernel]
        assert seconds is None or seconds == pytest.approx(sum(rows))
    gw.dispose([x, found.result])


def test_new_and_peak_bytes():
    x = new(1024)
    live = gw.memory()

    def body():
        first = x + x
        second = first + first
        first.dispose()
        return second

    found = gw.profile(lambda: gw.tidy(body))
    assert (found.new_tensors, found.new_bytes) == (1, 4096)
    assert found.peak_bytes == live.num_bytes + 2 * 4096
    assert found.peak_bytes_in_gpu == live.num_bytes_in_gpu + 2 * size_class(4096)
    freed = gw.profile(found.result.dispose)
    assert (freed.new_tensors, freed.new_bytes) == (-1, -4096)
    x.dispose()


def test_the_highest_peak_of_all_is_remembered_behind_a_profile():
    new(200_000).dispose()
    peak = gw.memory()
    found = gw.profile(lambda: None)
    assert found.peak_bytes < peak.peak_bytes
    assert found.peak_bytes_in_gpu < peak.peak_bytes_in_gpu
    after = gw.memory()
    assert after.peak_bytes == peak.peak_bytes
    assert after.peak_bytes_in_gpu == peak.peak_bytes_in_gpu


def test_what_was_pending_before_is_not_in_it():
    x = new()
    before = x + x
    found = gw.profile(lambda: gw.ops.relu(x))
    assert [row.kernel for row in found.rows] == ["activate"]
    gw.dispose([x, before, found.result])


def test_a_raise_inside_goes_on_and_the_next_profile_is_its_own(device):
    """TF.js stays in profiling mode."""
    x = new()

    def body():
        with gw.tidy():
            x + x
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        gw.profile(body)
    assert device.queue.profiler is None
    found = gw.profile(lambda: gw.ops.relu(x))
    assert [row.kernel for row in found.rows][-1] == "activate"
    assert device.queue.profiler is None
    y = x + x
    assert set(y.tolist()) == {2.0}
    gw.dispose([x, y, found.result])


def test_what_a_raise_left_pending_is_not_in_the_next_profile():
    x = new()

    def body():
        with gw.tidy():
            x + x
            raise KeyError("mine")

    with pytest.raises(KeyError):
        gw.profile(body)
    assert gw.profile(lambda: None).rows == []
    x.dispose()


def test_an_asynchronous_function():
    x = new()

    async def body():
        async with gw.tidy() as scope:
            await asyncio.sleep(0)
            first = x + x
            await first.data()
            return scope.escape(gw.ops.relu(first))

    found = asyncio.run(gw.profile_async(body))
    assert [row.kernel for row in found.rows] == ["binary", "activate"]
    assert (found.new_tensors, found.new_bytes) == (1, 256)
    gw.dispose([x, found.result])


def test_a_raise_in_an_asynchronous_function(device):
    async def body():
        await asyncio.sleep(0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(gw.profile_async(body))
    assert device.queue.profiler is None


def test_more_dispatches_than_one_query_set_holds():
    x = new(1)
    count = QUERIES // 2 + 88

    def body():
        with gw.tidy():
            for _ in range(count):
                x + x

    assert len(gw.profile(body).rows) == count
    x.dispose()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_generation_shows_its_replayed_dispatches(lm, rows):
    prompts, length = [[1, 2, 3, 4]] * rows, 14
    expected = tiny.text_of(lm, prompts, length)
    found = gw.profile(lambda: tiny.text_of(lm, prompts, length))
    assert found.result == expected
    kernels = {name: count for name, (count, _) in found.by_kernel().items()}
    steps = length - len(prompts[0])
    assert kernels["sample"] == steps  # one a token, though recorded once
    layers, prefills = lm.backbone.config.n_layer, 1
    attention = [count for name, count in kernels.items() if "attention" in name]
    assert sum(attention) >= layers * (steps + prefills)
    assert (found.new_tensors, found.new_bytes) == (0, 0)
    live = gw.memory()
    assert found.peak_bytes > live.num_bytes
    assert found.peak_bytes_in_gpu > live.num_bytes_in_gpu


def test_one_profile_at_a_time(device):
    """Overlapping ones would each miss what the other sees."""

    async def overlapping():
        return await asyncio.gather(
            *(gw.profile_async(lambda: asyncio.sleep(0.01)) for _ in range(2)),
            return_exceptions=True,
        )

    done, rejected = asyncio.run(overlapping())
    assert isinstance(done, gw.Profile)
    assert isinstance(rejected, BusyError)
    with pytest.raises(BusyError, match="one profile at a time"):
        gw.profile(lambda: gw.profile(lambda: None))
    assert device.queue.profiler is None
    assert device.memory.observer is None


def test_a_loss_while_profiled_gives_rows_without_times():
    with gw.Device() as lost:

        def work():
            (gw.tensor([1.0]) + 1).dispose()
            lost.queue.flush()
            lost.gpu.destroy()

        found = gw.profile(work)
    assert [row.seconds for row in found.rows] == [None, None]
