"""The order of dispatches, uploads and reads; recordings; and pooled memory full of NaN."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import wgpu

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.tensors import ops
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.tensor import empty
from gpt2_wgpu.webgpu import queue
from gpt2_wgpu.webgpu.queue import PENDING_LIMIT
from gpt2_wgpu.webgpu.readback import Readback
from gpt2_wgpu.webgpu.recording import Recording

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("NumPy")]


@pytest.fixture
def submits(device, monkeypatch):
    """Counts submits."""
    device.queue.flush()
    count = [0]
    submit = device.gpu.queue.submit

    def counting(buffers):
        count[0] += 1
        submit(buffers)

    monkeypatch.setattr(device.gpu.queue, "submit", counting)
    return count


def fill(x, value):
    """Every element becomes ``value``, when the queue gets there."""
    bits = int(np.float32(value).view(np.uint32))
    dispatch(x.device, "fill", (1, 1, 1), {"result": x}, {"count": x.size, "bits": bits})


class TestPending:
    def test_dispatches_wait_for_a_read(self, submits):
        with gw.tidy():
            x = gw.tensor([1.0, 2.0])
            for _ in range(10):
                x = ops.add(x, 1)
            assert submits == [0]
            assert x.tolist() == [11, 12]
            assert submits == [1]

    def test_a_full_list_is_submitted_and_order_kept(self, submits):
        count = 3 * PENDING_LIMIT + 1
        with gw.tidy():
            x = gw.tensor([0.0])
            for step in range(count):
                fill(x, step)
            assert submits == [3]
            assert x.tolist() == [count - 1]
            # each of these depends on the one before, and each has its own parameters
            y = gw.tensor([1.0])
            expected = np.float32(1)
            for step in range(count):
                y = ops.add(ops.mul(y, 0.5), step)
                expected = expected * np.float32(0.5) + np.float32(step)
            assert y.tolist() == [float(expected)]

    def test_flush_submits_once_and_then_nothing(self, device, submits):
        with gw.tidy():
            fill(empty(device, (1,)), 1)
            device.queue.flush()
            device.queue.flush()
        assert submits == [1]


class TestUploads:
    def test_come_after_what_is_pending(self, device):
        with gw.tidy():
            x = gw.tensor([1.0])
            y = ops.add(x, 10)
            device.queue.upload(x.storage, 0, np.float32([100]))
            z = ops.add(x, 10)
            assert (y.tolist(), z.tolist()) == ([11], [110])

    def test_into_a_buffer_lent_again_do_not_reach_its_former_readers(self):
        with gw.tidy():
            x = gw.tensor([1.0])
            buffer = x.storage.buffer
            y = ops.add(x, 10)  # pending
            x.dispose()
            again = gw.tensor([100.0])
            assert again.storage.buffer is buffer
            assert y.tolist() == [11]

    def test_a_kernel_may_write_where_a_pending_one_reads(self):
        with gw.tidy():
            x = gw.tensor([1.0])
            buffer = x.storage.buffer
            y = ops.relu(x)
            x.dispose()
            again = ops.add(y, y)
            assert again.storage.buffer is buffer
            assert (y.tolist(), again.tolist()) == ([1], [2])

    @pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 1023])
    def test_lengths_that_are_no_multiple_of_four(self, device, length):
        with gw.tidy():
            words = empty(device, (-(-length // 4) + 1,), "uint32")
            data = bytes(range(1, 256)) * 5
            device.queue.upload(words.storage, 0, b"\xff" * words.nbytes)
            device.queue.upload(words.storage, 0, data[:length])
            stored = words.numpy().tobytes()
        assert stored[:length] == data[:length]
        assert stored[length : -(-length // 4) * 4] == bytes(-length % 4)
        assert stored[-4:] == b"\xff" * 4

    def test_at_an_offset(self, device):
        with gw.tidy():
            x = gw.tensor([1.0, 2.0, 3.0])
            device.queue.upload(x.storage, 4, np.float32([9]))
            assert x.tolist() == [1, 9, 3]


class TestTrimming:
    def test_what_is_pending_survives(self, device):
        with gw.tidy():
            x = gw.tensor([1.0])
            y = ops.add(x, 10)
            x.dispose()
            device.memory.trim()  # destroys x's buffer, which the pending addition names
            assert y.tolist() == [11]

    def test_weights_are_destroyed_at_once_and_what_is_pending_survives(self, device):
        with gw.tidy():
            x = empty(device, (1,), kind="weights")
            fill(x, 5)
            y = ops.add(x, 10)
            x.dispose()
            assert y.tolist() == [15]


class TestGarbage:
    """The collector may free a tensor, and so want a flush, in the middle of anything."""

    @pytest.mark.parametrize("function", ["wanted_group", "encode"])
    def test_freed_while_a_command_is_added_or_encoded(self, device, monkeypatch, function):
        def collecting(*arguments):
            if garbage:
                garbage.pop().dispose()
            return original(*arguments)

        original = getattr(queue, function)
        monkeypatch.setattr(queue, function, collecting)
        with gw.tidy():
            garbage = []
            x, y = gw.tensor([1.0]), gw.tensor([2.0])
            fill(x, 7)
            garbage.append(empty(device, (1,), kind="weights"))
            fill(y, 8)
            assert (x.tolist(), y.tolist()) == ([7], [8])
        assert not garbage


class TestRecording:
    def test_runs_only_when_replayed(self, device):
        with gw.tidy():
            x, y = gw.tensor([1.0]), gw.tensor([0.0])
            with Recording(device) as recording:
                fill(y, 7)
                fill(x, 8)
            assert len(recording) == 2
            assert (x.tolist(), y.tolist()) == ([1], [0])
            recording.replay()
            assert (x.tolist(), y.tolist()) == ([8], [7])
            recording.close()

    def test_replays_step_by_step(self, device):
        with gw.tidy():
            x = gw.tensor([1.0, 2.0])
            with Recording(device) as recording:
                doubled = ops.mul(x, 2)
                # written back: the next replay goes on from here
                dispatch(
                    device,
                    "activate",
                    (1, 1, 1),
                    {"x": ops.add(doubled, 1), "result": x},
                    {"count": 2},
                )
            recording.replay(3)
            recording.replay()
            assert x.tolist() == [31, 47]
            recording.close()

    def test_frees_its_other_buffers_if_one_cannot_be_released(self, device, monkeypatch):
        reclaim = device.memory.reclaim

        def failing(storage):
            reclaim(storage)
            if storage.kind == "workspace":
                raise DeviceError("injected")

        with gw.tidy():
            x = gw.tensor([1.0])
            with Recording(device) as recording:
                ops.mul(ops.add(x, 1), 2).dispose()
        with monkeypatch.context() as patch:
            patch.setattr(device.memory, "reclaim", failing)
            with pytest.raises(DeviceError, match="injected"):
                recording.close()

    def test_more_commands_than_the_pending_limit(self, device):
        with gw.tidy():
            x = gw.tensor([0.0])
            with Recording(device) as recording:
                for step in range(PENDING_LIMIT + 50):
                    fill(x, step)
            recording.replay()
            assert x.tolist() == [PENDING_LIMIT + 49]
            recording.close()

    def test_eager_commands_keep_their_place_between_replays(self, device):
        with gw.tidy():
            x = gw.tensor([0.0])
            with Recording(device) as recording:
                fill(x, 1)
            before = ops.add(x, 0)
            recording.replay()
            between = ops.add(x, 0)
            fill(x, 2)
            recording.replay()
            after = ops.add(x, 0)
            assert (before.tolist(), between.tolist(), after.tolist()) == ([0], [1], [1])
            recording.close()

    def test_buffers_stay_until_it_is_closed(self, device):
        before = device.memory.info()
        x = gw.tensor([1.0])
        with Recording(device) as recording, gw.tidy() as scope:
            result = scope.escape(ops.add(ops.mul(x, 2), 1))
        x.dispose()
        assert device.memory.info().num_buffers > before.num_buffers + 1
        with gw.tidy():
            for _ in range(20):
                gw.tensor([float("nan")])  # would take x's buffer were it free
            recording.replay()
            assert result.tolist() == [3]
        recording.close()
        recording.close()
        result.dispose()
        assert device.memory.info().num_buffers == before.num_buffers

    def test_what_was_replayed_before_it_is_closed_still_runs(self, device):
        with gw.tidy():
            x = gw.tensor([1.0])
            with Recording(device) as recording:
                fill(x, 8)
            recording.replay()
            recording.close()
            assert x.tolist() == [8]

    def test_an_error_inside_lets_go_of_everything(self, device):
        with gw.tidy():
            x = gw.tensor([1.0])
            before = device.memory.info()
            with pytest.raises(KeyError), Recording(device) as recording, gw.tidy():
                ops.add(x, 1)
                raise KeyError
            assert len(recording) == 0
            assert device.memory.info().num_buffers == before.num_buffers
            assert ops.add(x, 1).tolist() == [2]  # eager again

    def test_other_tasks_are_not_recorded(self, device):
        async def main():
            async def bystander():
                async with gw.tidy():
                    await asyncio.sleep(0)
                    return await ops.add([1.0], [2.0]).data()

            task = asyncio.create_task(bystander())
            with Recording(device) as recording:
                await asyncio.sleep(0)
                values = await task
            recording.close()
            return len(recording), list(values)

        assert asyncio.run(main()) == (0, [3.0])


class TestReadback:
    def test_reads_the_same_ranges_again_and_again(self, device):
        with gw.tidy():
            x, y = gw.tensor([1.0, 2.0, 3.0]), gw.tensor([4, 5], "int32")
            readback = Readback(device, [(x.storage, 4, 8), (y.storage, 0, 4)])

            async def read():
                return [bytes(part) for part in await readback.read()]

            async def main():
                first = await read()
                fill(x, 9)
                return first, await read()

            first, second = asyncio.run(main())
            readback.close()
        assert first == [np.float32([2, 3]).tobytes(), np.int32([4]).tobytes()]
        assert second == [np.float32([9, 9]).tobytes(), np.int32([4]).tobytes()]


def test_pooled_memory_holds_what_it_held(device):
    """What the guard bands rely on, and why every kernel must write all of its result."""
    device.memory.trim()
    x = gw.tensor([float("nan")] * 3)
    x.dispose()
    y = empty(device, (3,))
    assert np.isnan(y.numpy()).all()
    y.dispose()


def test_a_failed_submit_loses_nobodys_work(device, monkeypatch):
    """The caller of flush gets the error; work that others had queued still runs."""
    x = gw.tensor([1.0] * 64)
    y = x + 1
    submit = device.gpu.queue.submit

    def reject(_):
        monkeypatch.setattr(device.gpu.queue, "submit", submit)
        raise wgpu.GPUInternalError("once")

    monkeypatch.setattr(device.gpu.queue, "submit", reject)
    with pytest.raises(DeviceError, match="once"):
        device.queue.flush()
    assert y.tolist() == [2.0] * 64
    monkeypatch.setattr(device.gpu.queue, "submit", reject)
    y = x + 2
    gw.trim()  # freeing never fails
    assert y.tolist() == [3.0] * 64
    gw.dispose([x, y])
