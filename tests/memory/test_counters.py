"""Counters of memory, profiles, weights in scopes, and buffers: TF.js's cases among them."""

from __future__ import annotations

import asyncio
from array import array

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError
from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.storage import size_class
from tests.memory import tiny
from tests.memory.tiny import new

pytestmark = pytest.mark.usefixtures("no_leak")


def pooled():
    info = gw.memory()
    return info.num_bytes_allocated_in_gpu - info.num_bytes_in_gpu


# --- engine_test: memory() ------------------------------------------------------------------------


def test_counts_what_lives():
    before = gw.memory()
    x, y = gw.tensor([1.0] * 100), gw.tensor([[1, 2]], "int32")
    view = x.view((10, 10))
    during = gw.memory()
    assert during.num_tensors == before.num_tensors + 3
    assert during.num_buffers == before.num_buffers + 2
    assert during.num_bytes == before.num_bytes + 408
    assert during.num_bytes_in_gpu == before.num_bytes_in_gpu + 512 + 256
    assert during.num_bytes_allocated_in_gpu >= during.num_bytes_in_gpu
    assert during.peak_bytes_in_gpu >= during.num_bytes_in_gpu
    gw.dispose([x, y, view])
    assert gw.memory().num_bytes == before.num_bytes


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_sum_counts_its_tensors_and_bytes(dtype):
    before = gw.memory()
    a = gw.tensor([1, 2, 3], dtype)
    b = a + a
    after = gw.memory()
    assert after.num_tensors - before.num_tensors == 2
    assert after.num_buffers - before.num_buffers == 2
    assert after.num_bytes - before.num_bytes == 24
    assert b.tolist() == [2, 4, 6]
    assert gw.memory().num_bytes_in_gpu == after.num_bytes_in_gpu  # reading leaves nothing
    gw.dispose([a, b])


def test_views_are_tensors_but_not_bytes():
    before = gw.memory()
    a = gw.tensor([1.0, 2.0, 3.0, 4.0])
    views = [a.view((2, 2)), gw.ops.reshape(a, (4, 1)), a.view((1, 4))]
    views.append(views[0].view((4,)))
    after = gw.memory()
    assert after.num_tensors - before.num_tensors == 5
    assert after.num_buffers - before.num_buffers == 1
    assert after.num_bytes - before.num_bytes == 16
    a.dispose()
    assert gw.memory().num_bytes - before.num_bytes == 16
    assert views[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    gw.dispose(views)


def test_bytes_are_split_by_kind():
    before = gw.memory().by_kind
    backbone = tiny.backbone()
    cache = backbone.new_cache(2, 8)
    work = new()
    after = gw.memory().by_kind
    assert {kind: after[kind] > before[kind] for kind in after} == {
        "weights": True, "cache": True, "workspace": True, "staging": False, "parameters": False
    }  # fmt: skip
    assert sum(after.values()) == gw.memory().num_bytes_in_gpu
    gw.dispose([cache, work])
    backbone.dispose()
    assert gw.memory().by_kind == before


def test_memory_opens_no_device_and_needs_none():
    gw.set_default_device(None)

    def look():
        return gw.memory(), gw.leaks(), gw.trim()

    import contextvars

    info, leaks, _ = contextvars.Context().run(look)  # where no `with Device()` is
    assert (info.num_tensors, info.by_kind["weights"], leaks) == (0, 0, [])


def test_peak_is_the_highest_there_was():
    a = new([0.0] * 100_000)
    peak = gw.memory()
    assert peak.peak_bytes >= peak.num_bytes >= 400_000
    assert peak.peak_bytes_in_gpu >= peak.num_bytes_in_gpu >= size_class(400_000)
    a.dispose()
    after = gw.memory()
    assert after.peak_bytes == peak.peak_bytes
    assert after.peak_bytes_in_gpu == peak.peak_bytes_in_gpu


# --- engine_test: profile -------------------------------------------------------------------------


def test_profile_of_squaring():
    x = new()
    found = gw.profile(lambda: x * x)
    assert found.result.tolist() == [1.0, 4.0, 9.0]
    assert (found.new_tensors, found.new_bytes) == (1, 12)
    assert [row.kernel for row in found.rows] == ["binary"]
    assert all(shape == (3,) for shape in found.rows[0].shapes.values())
    gw.dispose([x, found.result])


def test_profile_of_squaring_with_disposal():
    def body():
        x = new([1.0] * 4001)
        first = x * x
        first.dispose()
        result = x * x
        x.dispose()
        return result

    nbytes, in_gpu = 16_004, size_class(16_004)
    assert in_gpu > nbytes
    before = gw.memory()
    found = gw.profile(body)
    assert (found.new_tensors, found.new_bytes, found.new_bytes_in_gpu) == (1, nbytes, in_gpu)
    assert found.peak_bytes - before.num_bytes == 2 * nbytes
    assert found.peak_bytes_in_gpu - before.num_bytes_in_gpu == 2 * in_gpu
    assert max(sum(live.values()) for _, live in found.timeline) == found.peak_bytes_in_gpu
    assert len(found.rows) == 2
    found.result.dispose()


def test_profile_of_a_coroutine():
    async def body():
        x = new()
        squared = x * x
        await x.data()
        x.dispose()
        return squared

    found = asyncio.run(gw.profile_async(body))
    assert (found.new_tensors, found.new_bytes, len(found.rows)) == (1, 12, 1)
    found.result.dispose()


def test_profiles_are_independent_and_names_are_unique():
    x = new()
    first = gw.profile(lambda: gw.tidy(lambda: (x * x) + (x * x)))
    kernels = list(first.by_kernel())
    second = gw.profile(lambda: gw.tidy(lambda: gw.ops.softmax(x)))
    assert list(first.by_kernel()) == kernels == ["binary"]
    assert first.by_kernel()["binary"][0] == 3
    assert len(second.rows) == 1 and "binary" not in second.by_kernel()
    nothing, live = gw.profile(lambda: None), gw.memory()  # TF.js: -Infinity
    assert (nothing.peak_bytes, nothing.peak_bytes_in_gpu) == (
        live.num_bytes, live.num_bytes_in_gpu
    )  # fmt: skip
    gw.dispose([x, first.result, second.result])


# --- variable_test: what is kept ------------------------------------------------------------------


def test_weights_are_not_affected_by_scopes(device, lm):
    expected = tiny.text_of(lm)
    before = tiny.counters(device)
    for _ in range(3):
        with gw.tidy():
            assert tiny.text_of(lm) == expected
            assert gw.tidy(lambda: lm.backbone.weights) is lm.backbone.weights
    assert tiny.counters(device) == before


def test_weights_loaded_in_a_scope_outlive_it():
    with gw.tidy():
        backbone = tiny.backbone()
    assert not backbone.weights.wpe.parts[0][1].disposed
    backbone.dispose()


def test_a_second_dispose_frees_nothing_of_others():
    """TF.js frees the data of the tensor that a variable was made from."""
    source = new()
    variable = gw.keep(source.view((3,)))
    for _ in range(3):
        variable.dispose()
    assert source.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(DisposedTensorError):
        variable.tolist()
    source.dispose()


def test_a_model_disposed_twice_frees_nothing_of_others(lm):
    other = tiny.model()
    expected = tiny.text_of(lm)
    other.dispose()
    other.dispose()
    assert tiny.text_of(lm) == expected
    with pytest.raises(DisposedTensorError):
        tiny.text_of(other)


# --- backend_webgpu_test, buffer_manager_test -----------------------------------------------------


def test_buffers_are_recycled_and_bytes_move_between_used_and_free():
    gw.trim()
    start = gw.memory()
    a, b = new([1.0] * 1024), new([2.0] * 1024)
    assert gw.memory().num_bytes_in_gpu == start.num_bytes_in_gpu + 8192
    buffers = {id(a.storage.buffer), id(b.storage.buffer)}
    gw.dispose([a, b])
    assert gw.memory().num_bytes_in_gpu == start.num_bytes_in_gpu and pooled() == 8192
    c, d = new([3.0] * 1024), new([4.0] * 1000)  # another size of the same class
    assert {id(c.storage.buffer), id(d.storage.buffer)} == buffers and pooled() == 0
    assert (c.tolist()[0], d.tolist()[0]) == (3.0, 4.0)
    gw.dispose([c, d])
    gw.trim()
    assert pooled() == 0


def test_work_of_a_disposed_tensor_that_is_pending_still_runs():
    """TF.js delays the release; here the queue's order makes it unnecessary."""
    for round_ in range(20):
        a = new([float(round_)] * 512)
        b = a + 1  # pending
        a.dispose()
        other = new([-1.0] * 512)  # an upload, perhaps into the same buffer
        c = b + b
        b.dispose()
        d = other * 2  # perhaps written where b was
        assert set(c.tolist()) == {2.0 * round_ + 2}
        assert set(d.tolist()) == {-2.0}
        gw.dispose([c, d, other])


def test_many_pending_dispatches_run_without_a_read():
    before = gw.memory()
    total = new([0.0])
    for _ in range(1000):  # more than one submit holds
        following = total + 1
        total.dispose()
        total = following
    assert gw.memory().num_tensors - before.num_tensors == 1
    assert total.tolist() == [1000.0]
    total.dispose()


def test_varying_sizes_do_not_grow_the_pool_for_ever(device, monkeypatch):
    """TF.js pools exact sizes without a bound: every new length stays allocated."""
    gw.trim()
    monkeypatch.setattr(device.memory, "pool_limit", 1 << 20)
    for size in range(1000, 60_000, 500):
        gw.tensor(array("f", bytes(4 * size))).dispose()
        assert pooled() <= 1 << 20
    gw.trim()


def test_size_classes_waste_little():
    for nbytes in [*range(0, 70_000, 7), *(2**k + d for k in range(17, 33) for d in (-1, 0, 1))]:
        size = size_class(nbytes)
        assert size >= max(nbytes, 256) and size % 256 == 0
        assert size - nbytes <= max(256, nbytes / 16)
        assert size_class(size) == size


def test_a_buffer_is_lent_to_one_only(device):
    """However often it is disposed, a buffer is in the pool once."""
    gw.trim()
    a = new([1.0] * 300)
    view = a.view((300,))
    for tensor in (a, a, view, view, a):
        tensor.dispose()
    first, second = new([1.0] * 300), new([2.0] * 300)
    assert first.storage.buffer is not second.storage.buffer
    assert set(first.tolist()) == {1.0} and set(second.tolist()) == {2.0}
    gw.dispose([first, second])


def test_a_new_device_starts_at_nothing():
    with gw.Device() as other:
        assert tiny.counters(other)[:4] == (0, 0, 0, 0)
        a = gw.tensor([1.0], device=other)
        assert gw.memory(other).num_tensors == 1
        a.dispose()
        assert isinstance(other.memory, BufferPool)
        assert tiny.counters(other)[:4] == (0, 0, 0, 0)
