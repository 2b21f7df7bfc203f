"""Tensors over buffers of the caller, natively and in browsers."""

from __future__ import annotations

import copy
from array import array

import pytest
import wgpu

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

USAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST


@pytest.fixture
def theirs(device):
    buffer = device.gpu.create_buffer(size=16, usage=USAGE)
    device.gpu.queue.write_buffer(buffer, 0, array("f", [1.0, 2.0, 3.0, 4.0]))
    yield buffer
    buffer.destroy()


def test_a_tensor_over_their_buffer(device, theirs):
    before = tiny.counters(device)
    assert gw.Device.from_wgpu(device.gpu) is device
    with gw.tidy():
        x = gw.Tensor.from_wgpu(theirs, (2, 2))
        assert x.buffer is theirs
        y = x * 2 + x
        own = copy.deepcopy(x)
        assert y.tolist() == [[3.0, 6.0], [9.0, 12.0]]
        device.gpu.queue.write_buffer(theirs, 0, array("f", [5.0]))
        assert x.tolist() == [[5.0, 2.0], [3.0, 4.0]]
        assert own.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert tiny.counters(device) == before
    again = gw.Tensor.from_wgpu(theirs, 4)  # it was neither destroyed nor lent
    assert again.tolist() == [5.0, 2.0, 3.0, 4.0]
    again.dispose()


def test_commands_of_theirs_see_ours(device, theirs):
    with gw.tidy():
        y = gw.tensor([1.0, 2.0]) * 4
        encoder = device.gpu.create_command_encoder()
        encoder.copy_buffer_to_buffer(y.buffer, 0, theirs, 0, 8)
        device.gpu.queue.submit([encoder.finish()])
        assert gw.Tensor.from_wgpu(theirs, 4).tolist() == [4.0, 8.0, 3.0, 4.0]


def test_what_is_no_buffer_or_device_is_refused(device):
    for call in (lambda: gw.Tensor.from_wgpu([1.0], 1), lambda: gw.Device.from_wgpu([1.0])):
        with pytest.raises(
            InvalidArgumentError, match=r"from_wgpu takes a wgpu\.GPU.*, not \[1\.0"
        ):
            call()
