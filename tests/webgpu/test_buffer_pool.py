"""The buffer pool and its accounting, without a GPU: buffers are fakes."""

from __future__ import annotations

import gc
from functools import partial

import pytest

from gpt2_wgpu.errors import (
    DeviceError,
    DisposedTensorError,
    InvalidArgumentError,
    OutOfGPUMemoryError,
)
from gpt2_wgpu.webgpu.buffer_pool import BufferPool
from gpt2_wgpu.webgpu.storage import KINDS, size_class
from tests.webgpu.fakes import FakeDevice

KIB = 1024


@pytest.fixture
def device():
    """A fake device with a budget and a pool limit of 1 MiB each."""
    return FakeDevice()


@pytest.fixture
def pool(device):
    """The pool of the fake device."""
    return device.memory


def pooled(pool):
    info = pool.info()
    return info.num_bytes_allocated_in_gpu - info.num_bytes_in_gpu


class TestReuse:
    def test_a_freed_buffer_is_used_again_for_the_same_size_class(self, device, pool):
        first = pool.allocate(1000)
        buffer = first.buffer
        first.release()
        assert pool.allocate(1024).buffer is buffer  # both of the class of 1,024 bytes
        assert len(device.created) == 1

    def test_a_buffer_in_use_is_not_given_out_again(self, pool):
        assert pool.allocate(1000).buffer is not pool.allocate(1000).buffer

    def test_a_retained_buffer_is_freed_with_its_last_reference(self, pool):
        storage = pool.allocate(1000).retain()
        storage.release()
        assert pool.info().num_buffers == 1
        storage.release()
        assert pool.info().num_buffers == 0
        assert pooled(pool) == 1024

    def test_a_freed_buffer_cannot_be_retained(self, pool):
        storage = pool.allocate(1000)
        storage.release()
        with pytest.raises(DisposedTensorError, match="Storage of 1,000 bytes"):
            storage.retain()

    def test_cache_and_workspace_share_buffers_and_staging_has_its_own(self, pool):
        cache = pool.allocate(1000, "cache")
        buffer = cache.buffer
        cache.release()
        assert pool.allocate(1000, "staging").buffer is not buffer
        assert pool.allocate(1000, "workspace").buffer is buffer

    @pytest.mark.parametrize("kind", ["weights", "parameters"])
    def test_other_kinds_are_destroyed_after_a_submit(self, device, pool, kind):
        storage = pool.allocate(1000, kind)
        storage.release()
        assert storage.buffer.destroyed
        assert device.flushes == 1
        assert pooled(pool) == 0

    def test_usages_follow_the_kind(self, device, pool):
        for kind in KINDS:
            pool.allocate(256, kind)
        usages = [buffer.usage for buffer in device.created]
        assert usages == ["storage", "storage", "storage", "staging", "uniform"]

    def test_an_unknown_kind_is_rejected(self, pool):
        with pytest.raises(InvalidArgumentError, match="not 'wights'"):
            pool.allocate(256, "wights")

    def test_a_callers_buffer_is_counted_and_never_destroyed(self, device, pool):
        buffer = device.create_buffer(512, "storage")
        storage = pool.adopt(buffer, 512)
        info = pool.info()
        assert (info.num_buffers, info.num_bytes, info.num_bytes_in_gpu) == (1, 512, 0)
        storage.release()
        assert not buffer.destroyed
        assert (pool.info().num_buffers, pooled(pool)) == (0, 0)


class TestPoolLimit:
    def test_beyond_it_the_least_recently_used_sizes_are_destroyed_down_to_half(self, device):
        device = FakeDevice(pool_limit=64 * KIB)
        storages = [device.memory.allocate(size * KIB) for size in (16, 32, 24)]
        for storage in storages:
            storage.release()
        destroyed = [storage.buffer.destroyed for storage in storages]
        assert destroyed == [True, True, False]
        assert pooled(device.memory) == 24 * KIB

    def test_trim_destroys_all(self, pool):
        storage = pool.allocate(1000)
        storage.release()
        pool.trim()
        assert storage.buffer.destroyed
        assert pooled(pool) == 0

    def test_destroying_waits_for_the_submit_of_what_may_name_the_buffer(self, device, pool):
        storage = pool.allocate(1000, "weights")
        working, device.flush = device.flush, None

        def failing():
            raise DeviceError("encoding failed")

        pool._flush = failing
        storage.release()  # freeing never fails
        assert not storage.buffer.destroyed
        pool._flush = working
        pool.allocate(256, "weights").release()
        assert storage.buffer.destroyed


class TestBudget:
    def test_counts_size_classes_and_rejects_in_words(self, device, pool):
        pool.allocate(600 * KIB, "weights")
        with pytest.raises(OutOfGPUMemoryError) as rejected:
            pool.allocate(600 * KIB)
        message = str(rejected.value)
        assert "the memory budget" in message and "622,592 bytes for a workspace buffer" in message
        assert "622,592 bytes are in use (weights 622,592) of a budget of 1,048,576" in message
        assert pool.allocate(400 * KIB).nbytes == 400 * KIB
        assert len(device.created) == 2

    def test_pooled_buffers_make_room_for_other_sizes(self, pool):
        large = pool.allocate(900 * KIB)
        large.release()
        pool.allocate(500 * KIB)
        assert large.buffer.destroyed
        assert pool.info().num_bytes_allocated_in_gpu <= pool.budget

    def test_when_the_driver_lacks_memory_the_pool_is_emptied_and_asked_once_more(self, device):
        pool = device.memory
        device.free, device.out_of_memory = 100 * KIB, OutOfGPUMemoryError("the driver")
        small = pool.allocate(64 * KIB)
        small.release()
        pool.allocate(96 * KIB)
        assert small.buffer.destroyed

    def test_when_the_driver_lacks_memory_and_nothing_is_pooled_the_error_is_raised(self, device):
        device.free, device.out_of_memory = KIB, OutOfGPUMemoryError("the driver")
        with pytest.raises(OutOfGPUMemoryError, match="the driver"):
            device.memory.allocate(2 * KIB)
        assert device.asked == 1
        info = device.memory.info()
        assert (info.num_buffers, info.num_bytes, info.num_bytes_in_gpu) == (0, 0, 0)

    def test_a_new_pool_inherits_the_settings_of_an_old_one(self, pool):
        pool.budget, pool.debug, pool.pool_limit = 123, True, 456
        other = FakeDevice().memory
        other.inherit(pool)
        assert (other.budget, other.debug, other.pool_limit) == (123, True, 456)


class TestAccounting:
    def test_bytes_are_counted_as_asked_for_and_as_allocated(self, pool):
        pool.allocate(1001, "cache")
        info = pool.info()
        assert info.num_bytes == 1001
        assert info.num_bytes_in_gpu == info.by_kind["cache"] == size_class(1001) == 1024

    def test_peaks_outlive_what_was_freed_and_a_block_has_its_own(self, pool):
        pool.allocate(4096).release()
        with pool.measured_peak() as peak:
            pool.allocate(1024).release()
            assert peak() == (1024, 1024)
        info = pool.info()
        assert (info.num_bytes, info.peak_bytes, info.peak_bytes_in_gpu) == (0, 4096, 4096)

    def test_the_observer_sees_live_bytes_after_each_change(self, pool):
        seen = []
        pool.observer = lambda live: seen.append(live["workspace"])
        pool.allocate(256).release()
        assert seen == [256, 0]

    def test_owners_are_counted_and_not_kept_alive(self, pool):
        class Owner:
            pass

        owner = Owner()
        serial = pool.register(owner)
        assert pool.info().num_tensors == 1
        assert pool.owners[serial]() is owner
        del owner
        gc.collect()
        assert pool.owners[serial]() is None
        pool.unregister(serial)
        assert pool.info().num_tensors == 0

    @pytest.mark.parametrize("nbytes", [0, 1, 256, 257, 1000, 4097, 1 << 20, (1 << 30) + 1])
    def test_size_classes_waste_at_most_a_sixteenth(self, nbytes):
        size = size_class(nbytes)
        assert size % 256 == 0 and size >= max(nbytes, 256)
        assert size <= max(nbytes * 17 / 16, nbytes + 256)
        assert size_class(size) == size


class TestQuarantine:
    def test_no_buffer_in_use_is_pooled_again_and_later_ones_are(self, pool):
        suspect, idle = pool.allocate(1024), pool.allocate(2048)
        idle.release()
        pool.quarantine()
        assert idle.buffer.destroyed  # the pool was emptied
        later = pool.allocate(4096)
        suspect.release()
        later.release()
        assert suspect.buffer.destroyed
        assert not later.buffer.destroyed


class TestLostDevice:
    def test_buffers_are_only_counted(self, device, pool):
        idle, used = pool.allocate(1024), pool.allocate(2048)
        idle.release()
        pool.forget()
        assert pooled(pool) == 0
        used.release()
        assert pool.info().num_buffers == 0
        assert device.flushes == 0
        assert not idle.buffer.destroyed and not used.buffer.destroyed

    def test_buffers_in_use_can_be_destroyed_at_once(self, pool):
        used = pool.allocate(1024)
        pool.destroy_in_use()
        assert used.buffer.destroyed


class TestDeferred:
    def test_releases_run_at_the_next_allocation(self, pool):
        storage = pool.allocate(1024)
        pool.defer(storage.release)
        assert storage.references == 1
        assert pool.allocate(1024).buffer is storage.buffer

    def test_many_run_in_constant_stack_depth(self, pool):
        """Each free submits, and a submit drains: that must not recurse."""
        storages = [pool.allocate(256, "weights") for _ in range(3000)]
        submit = pool._flush
        pool._flush = lambda: (pool.drain(), submit())
        for storage in storages:
            pool.defer(storage.release)
        pool.drain()
        assert all(storage.buffer.destroyed for storage in storages)

    def test_one_that_raises_leaves_the_others_for_the_next_drain(self, pool):
        storage = pool.allocate(1024)
        pool.defer(partial(int, "no number"))
        pool.defer(storage.release)
        with pytest.raises(ValueError, match="no number"):
            pool.drain()
        pool.drain()
        assert storage.references == 0


def test_a_pool_needs_callables_only():
    """What a device gives it: a budget, a way to make buffers, a way to submit."""
    flushed = []
    pool = BufferPool(4096, lambda nbytes, usage: (nbytes, usage), lambda: flushed.append(1))
    assert pool.allocate(300, "staging").buffer == (512, "staging")
    assert not flushed
