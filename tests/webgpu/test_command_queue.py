"""The command queue and read-backs, without a GPU: in which order they call wgpu."""

from __future__ import annotations

import pytest
import wgpu

from gpt2_wgpu.errors import DeviceLostError, NotRecordableError
from gpt2_wgpu.webgpu.pipelines import Kernel, parse_signature
from gpt2_wgpu.webgpu.queue import (
    PARAMS_BYTES,
    PARAMS_STRIDE,
    PENDING_LIMIT,
    Batch,
    CommandQueue,
    Dispatch,
    DispatchLabel,
    open_recorder,
)
from gpt2_wgpu.webgpu.waiting import sync
from tests.webgpu.fakes import FakeDevice, FakeObject
from tests.webgpu.shaders import DOUBLE

SIGNATURE = parse_signature("double", DOUBLE)
LABEL = DispatchLabel("double", {})
SUBMIT = ["create_bind_group_layout", "finish", "submit"]  # the first: is the device alive?


class Promise:
    """A promise that is resolved already."""

    def sync_wait(self):
        return None


class MappableBuffer(FakeObject):
    """A staging buffer whose bytes are 0, 1, 2, ..."""

    def __init__(self):
        super().__init__(wgpu.GPUBuffer)

    def map_async(self, mode, offset, size):
        self.calls.append(("map_async", size))
        return Promise()

    def read_mapped(self, offset, size, copy):
        return bytes(range(offset, offset + size))


class NeverMapped(MappableBuffer):
    """A staging buffer of a device that is gone: its promise is never resolved."""

    def map_async(self, mode, offset, size):
        return self

    def sync_wait(self):
        pytest.fail("waited for a device that is gone")


class Recorder:
    """An open recording of ``device``."""

    def __init__(self, device):
        self.device: object = device
        self.was_read = False

    def add(self, work):
        pytest.fail("nothing is dispatched here")


@pytest.fixture
def device():
    """A fake device with a real pool and a real queue."""
    device = FakeDevice()
    device.queue = CommandQueue(device, device.create_buffer(PARAMS_BYTES, "uniform"))
    device.memory._flush = device.queue.flush
    return device


@pytest.fixture
def gpu(device):
    """What records the calls."""
    return device.gpu


def work(device, pipeline="a pipeline", params=b"1234"):
    storage = device.memory.allocate(256)
    kernel = Kernel("double", SIGNATURE, pipeline, "a layout")
    ranges = {"x": (storage, 0, 256), "result": (storage, 0, 256)}
    return Dispatch(kernel, ranges, params, (1, 2, 3), LABEL)


class TestSubmits:
    def test_dispatches_wait_and_are_submitted_in_one_pass(self, device, gpu):
        for _ in range(3):
            device.queue.add(work(device))
        assert gpu.names() == ["create_bind_group"] * 3
        device.queue.flush()
        dispatches = ["set_bind_group", "dispatch_workgroups"] * 3
        assert gpu.names() == [
            "write_buffer", "create_command_encoder", "begin_compute_pass",
            "set_pipeline", *dispatches, "end", *SUBMIT,
        ]  # fmt: skip
        assert (device.queue.submits, device.queue.dispatches) == (1, 3)

    def test_each_dispatch_has_its_own_slot_of_parameters(self, device, gpu):
        device.queue.add(work(device, params=b"first"))
        device.queue.add(work(device, params=b"second"))
        offsets = [
            entry["resource"]["offset"]
            for _, arguments in gpu.calls
            for entry in arguments["entries"]
            if entry["binding"] == SIGNATURE.uniform
        ]
        assert offsets == [0, PARAMS_STRIDE]
        gpu.names()
        device.queue.flush()
        written = bytes(dict(gpu.calls)["write_buffer"][2])
        assert written.startswith(b"first")
        assert written[PARAMS_STRIDE:].startswith(b"second")
        assert len(written) == 2 * PARAMS_STRIDE

    def test_a_flush_of_nothing_submits_nothing(self, device, gpu):
        device.queue.flush()
        assert gpu.names() == []

    def test_a_full_queue_is_submitted(self, device, gpu):
        for _ in range(PENDING_LIMIT + 1):
            device.queue.add(work(device))
        assert device.queue.submits == 1
        device.queue.flush()
        assert device.queue.dispatches == PENDING_LIMIT + 1

    def test_the_pipeline_is_set_where_it_changes(self, device, gpu):
        for pipeline in ("p", "p", "q", "p"):
            device.queue.add(work(device, pipeline))
        device.queue.flush()
        assert gpu.count("set_pipeline") == 3

    def test_recorded_commands_run_so_many_times_between_the_others(self, device, gpu):
        device.queue.add(work(device, "before"))
        commands = [(pipeline, "a group", (1, 1, 1), LABEL) for pipeline in "pq"]
        device.queue.replay(Batch(commands, times=2))
        device.queue.add(work(device, "after"))
        device.queue.flush()
        order = [arguments[0] for name, arguments in gpu.calls if name == "set_pipeline"]
        assert order == ["before", "p", "q", "p", "q", "after"]
        assert device.queue.dispatches == 6

    def test_a_profiler_encodes_the_batches_instead(self, device, gpu):
        seen = []
        device.queue.profiler = lambda encoder, batches: seen.extend(batches)
        device.queue.add(work(device))
        device.queue.flush()
        assert [len(batch.commands) for batch in seen] == [1]
        assert gpu.count("begin_compute_pass") == 0 and device.queue.submits == 1

    def test_encoded_work_goes_with_the_next_flush_in_one_submit(self, device, gpu):
        source, target = device.memory.allocate(256), device.memory.allocate(256)
        device.queue.add(work(device, "first"))
        device.queue.encode_pending()
        device.queue.encode_pending()  # nothing is pending
        device.queue.add(work(device, "second"))
        assert device.queue.submits == 0
        device.queue.copy(source, target, 16)
        order = [arguments[0] for name, arguments in gpu.calls if name == "set_pipeline"]
        assert order == ["first", "second"]
        assert gpu.count("create_command_encoder") == gpu.count("submit") == 1
        assert gpu.names()[-5:] == ["end", "copy_buffer_to_buffer", *SUBMIT]
        assert (device.queue.submits, device.queue.dispatches) == (1, 2)

    def test_encoded_work_is_encoded_again_after_a_submit_that_failed(self, device, gpu):
        for pipeline in ("first", "second"):
            device.queue.add(work(device, pipeline))
            device.queue.encode_pending()
        gpu.failing["submit"] = RuntimeError("not now")
        with pytest.raises(RuntimeError, match="not now"):
            device.queue.flush()
        del gpu.failing["submit"]
        gpu.names()
        device.queue.flush()
        assert gpu.count("create_command_encoder") == 1
        order = [arguments[0] for name, arguments in gpu.calls if name == "set_pipeline"]
        assert order == ["first", "second"] and device.queue.dispatches == 2

    def test_encoded_work_of_a_lost_device_is_forgotten(self, device, gpu):
        device.queue.add(work(device))
        device.queue.encode_pending()
        device.queue.forget()
        device.queue.flush()
        assert gpu.count("finish") == gpu.count("submit") == 0

    def test_what_could_not_be_submitted_is_kept_for_the_next_flush(self, device, gpu):
        device.queue.add(work(device))
        gpu.failing["submit"] = RuntimeError("not now")
        with pytest.raises(RuntimeError, match="not now"):
            device.queue.flush()
        assert device.queue.submits == 0
        del gpu.failing["submit"]
        device.queue.flush()
        assert device.queue.dispatches == 1

    def test_a_discarded_buffer_is_destroyed_after_the_submit_that_uses_it(self, device, gpu):
        weights = device.memory.allocate(256, "weights")
        gpu.failing["submit"] = RuntimeError("not now")
        device.queue.add(work(device))
        with pytest.raises(RuntimeError):
            weights.release()
        assert not weights.buffer.destroyed
        del gpu.failing["submit"]
        device.queue.flush()
        assert weights.buffer.destroyed


class TestTransfers:
    def test_an_upload_comes_after_pending_work(self, device, gpu):
        device.queue.add(work(device))
        gpu.names()
        device.queue.upload(device.memory.allocate(8), 0, b"12345678")
        assert gpu.names()[-2:] == ["submit", "write_buffer"]

    def test_the_last_bytes_of_an_upload_are_padded_to_a_whole_word(self, device, gpu):
        storage = device.memory.allocate(256)
        device.queue.upload(storage, 8, b"123456")
        writes = [(arguments[1], bytes(arguments[2])) for _, arguments in gpu.calls]
        assert writes == [(8, b"1234"), (12, b"56\0\0")]

    def test_a_copy_follows_pending_work_in_the_same_submit(self, device, gpu):
        source, target = device.memory.allocate(256), device.memory.allocate(256)
        device.queue.add(work(device))
        device.queue.copy(source, target, 16)
        assert gpu.names()[-5:] == ["end", "copy_buffer_to_buffer", *SUBMIT]

    def test_a_read_gives_the_bytes_of_each_range(self, device, gpu):
        x, y = device.memory.allocate(256), device.memory.allocate(256)
        device.create_buffer = device.memory._create_buffer = lambda nbytes, usage: MappableBuffer()
        first, second = sync(device.queue.read([(x, 4, 8), (y, 0, 4)]), "read")
        assert bytes(first) == bytes(range(8)) and bytes(second) == bytes(range(8, 12))
        copies = [arguments for name, arguments in gpu.calls if name == "copy_buffer_to_buffer"]
        assert [(c[0], c[1], c[3], c[4]) for c in copies] == [
            (x.buffer, 4, 0, 8),
            (y.buffer, 0, 8, 4),
        ]
        assert device.memory.info().by_kind["staging"] == 0

    @pytest.mark.parametrize(("closed", "how"), [(True, "closed"), (False, "lost")])
    def test_a_read_of_a_device_that_is_gone_raises(self, device, closed, how):
        x = device.memory.allocate(256)
        device.is_open, device.is_closed = False, closed
        device.memory._create_buffer = lambda nbytes, usage: NeverMapped()
        with pytest.raises(DeviceLostError, match=f"a GPU was {how}"):
            sync(device.queue.read([(x, 0, 4)]), "read")
        assert device.memory.info().by_kind["staging"] == 0

    def test_nothing_is_read_or_copied_while_recording(self, device):
        token = open_recorder.set(Recorder(device))
        x = device.memory.allocate(256)
        try:
            with pytest.raises(NotRecordableError, match="cannot copy while recording"):
                device.queue.copy(x, x, 4)
            with pytest.raises(NotRecordableError, match="cannot read while recording"):
                sync(device.queue.read([(x, 0, 4)]), "read")
        finally:
            open_recorder.reset(token)
