"""Native bind groups: those of wgpu's public call, or a fallback to it."""

from __future__ import annotations

import sys

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceError, DeviceLostError
from gpt2_wgpu.tensors import ops
from gpt2_wgpu.webgpu import backends
from gpt2_wgpu.webgpu.backends.native_bind_groups import native_bind_groups
from gpt2_wgpu.webgpu.queue import Dispatch, DispatchLabel, wanted_group
from tests.gpu.webgpu.test_native_bundle import Library

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("wgpu-native")]
CREATE = "wgpuDeviceCreateBindGroup"


@pytest.fixture
def native():
    """The module whose private parts are used."""
    from wgpu.backends.wgpu_native import _api

    return _api


@pytest.fixture
def wanted(device):
    """Groups of two kernels, of which the second has more entries and reads a buffer slice."""
    groups = []
    with gw.tidy():
        x = gw.tensor([0.0] * 300)
        kernels = [device.pipelines.get(name) for name in ("fill", "activate")]
        for slot, kernel in enumerate(kernels):
            names = kernel.signature.bindings
            ranges = {
                name: (x.storage, 256 * place, 40 + 4 * place) for place, name in enumerate(names)
            }
            label = DispatchLabel(kernel.name, {})
            params = device.queue._uniform
            groups.append(
                wanted_group(Dispatch(kernel, ranges, b"", (1, 1, 1), label), params, slot)
            )
        yield groups


class Calls:
    """wgpu-native's functions, of which the one that creates a group notes its arguments."""

    def __init__(self, native):
        self._ffi, self._lib, self.seen = native.ffi, native.lib, []

    def __getattr__(self, name):
        found = getattr(self._lib, name)
        if name != CREATE:
            return found
        number = lambda handle: int(self._ffi.cast("uintptr_t", handle))  # noqa: E731

        def called(device, group):
            entries = [group.entries[place] for place in range(group.entryCount)]
            found_entries = [(e.binding, number(e.buffer), e.offset, e.size) for e in entries]
            no_label = group.label.data == self._ffi.NULL
            self.seen.append((number(group.layout), no_label, *found_entries))
            return found(device, group)

        return self._ffi.callback(self._ffi.typeof(found), called)


def test_the_arguments_are_those_of_the_public_call(device, native, wanted, monkeypatch):
    calls = Calls(native)
    number = lambda handle: int(native.ffi.cast("uintptr_t", handle))  # noqa: E731
    expected = [
        (
            number(layout._internal),
            True,
            *[(binding, number(buffer._internal), *at) for binding, buffer, *at in entries],
        )
        for layout, entries in wanted
    ]
    noting = getattr(calls, CREATE)
    monkeypatch.setattr(native.libf, CREATE, noting)
    monkeypatch.setattr(native, "lib", calls)
    made = native_bind_groups(device.gpu, wanted)
    assert made is not None
    assert [type(group).__name__ for group in made] == ["GPUBindGroup"] * 2
    assert calls.seen == expected
    calls.seen.clear()
    for each in wanted:
        backends._bind_group(device.gpu, *each)
    assert [call[0] for call in calls.seen] == [call[0] for call in expected]
    assert [call[2:] for call in calls.seen] == [call[2:] for call in expected]


def test_an_eager_operation_uses_them(device, monkeypatch):
    """Without, nothing else would fail, and the first token would take the host longer."""
    monkeypatch.setattr(type(device.gpu), "create_bind_group", None)
    with gw.tidy():
        assert ops.add(gw.tensor([1.0, 2.0]), 1).tolist() == [2, 3]


@pytest.mark.parametrize("fast", [True, False])
def test_errors(monkeypatch, fast):
    if not fast:
        monkeypatch.setattr(backends, "native_bind_groups", lambda *_: None)
    with gw.Device() as device, gw.tidy():
        x = gw.tensor([1.0, 2.0])
        kernel = device.pipelines.get("fill")
        ranges = {"result": (x.storage, 4, 8)}  # offsets are multiples of 256
        work = Dispatch(kernel, ranges, b"", (1, 1, 1), DispatchLabel("fill", {}))
        with pytest.raises(DeviceError, match=r"submitting work: .*alignment"):
            device.queue.add(work)
        assert ops.add(x, 1).tolist() == [2, 3]
        device.gpu.destroy()
        with pytest.raises(DeviceLostError, match="device is lost"):
            ops.add(x, 1).tolist()


def without_the_function(native, patch):
    patch.setattr(native, "lib", Library(native.lib, {CREATE: None}))


def with_other_arguments(native, patch):
    other = native.lib.wgpuDeviceCreateSampler
    patch.setattr(native, "lib", Library(native.lib, {CREATE: other}))


def without_a_look_for_errors(native, patch):
    patch.delattr(type(native.libf), "_make_proxy_func")


def without_a_native_backend(native, patch):
    patch.setitem(sys.modules, native.__name__, None)


@pytest.mark.parametrize(
    "change",
    [
        without_the_function,
        with_other_arguments,
        without_a_look_for_errors,
        without_a_native_backend,
    ],
)
def test_the_public_call_where_wgpu_is_another(device, native, wanted, change):
    with pytest.MonkeyPatch.context() as patch:
        change(native, patch)
        assert native_bind_groups(device.gpu, wanted) is None
        assert len(backends.bind_groups(device.gpu, wanted)) == 2
    assert native_bind_groups(device.gpu, wanted) is not None
