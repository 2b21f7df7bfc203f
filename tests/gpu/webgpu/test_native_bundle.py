"""Native bundles: the same results as the public calls, or a fallback to them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DeviceError, DeviceLostError
from gpt2_wgpu.tensors import ops
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.webgpu import backends, queue
from gpt2_wgpu.webgpu.backends.native_bundle import native_bundle
from gpt2_wgpu.webgpu.queue import Batch
from gpt2_wgpu.webgpu.recording import Recording

pytestmark = [pytest.mark.usefixtures("no_leak"), pytest.mark.native("wgpu-native")]

PREFIX = "wgpuComputePassEncoder"


class Library:
    """wgpu-native's functions, some of them replaced, or missing (None)."""

    def __init__(self, lib, changed):
        self._lib, self._changed = lib, changed

    def __getattr__(self, name):
        found = self._changed.get(name, self)
        if found is None:
            raise AttributeError(name)
        return getattr(self._lib, name) if found is self else found


@pytest.fixture
def native():
    """The module whose private parts are used."""
    from wgpu.backends.wgpu_native import _api

    return _api


@pytest.fixture
def recorded(device):
    """Commands of two kernels, one of them twice in a row."""
    with gw.tidy():
        x, y = gw.tensor([0.0] * 300), gw.tensor([0.0] * 300)
        with Recording(device) as recording:
            for bits in (1, 2):
                dispatch(device, "fill", (5, 1, 1), {"result": x}, {"count": 300, "bits": bits})
            dispatch(device, "activate", (1, 5, 1), {"x": x, "result": y}, {"count": 300})
    yield recording.commands
    recording.close()


def grow(device, x):
    """A step: every element of ``x`` becomes twice what it was, and one."""
    with Recording(device) as recording, gw.tidy():
        y = ops.add(ops.mul(x, 2), 1)
        count = {"count": x.size}
        dispatch(device, "activate", (1, 1, 1), {"x": y, "result": x}, count)
    return recording


class TestTaken:
    def test_recordings_are_bundled(self, device, recorded):
        """Without, nothing else would fail, and a token would cost the host twice as much."""
        assert native_bundle(recorded) is not None
        assert backends.bundle(device.gpu, recorded) is not None

    def test_the_calls_are_those_of_the_public_way(self, recorded, native, monkeypatch):
        number = lambda handle: int(native.ffi.cast("uintptr_t", handle))  # noqa: E731
        direct, public = [], []

        def fake(name, *convert):
            kind = native.ffi.typeof(getattr(native.lib, PREFIX + name))

            def called(_, *arguments):
                direct.append((name, *[f(a) for f, a in zip(convert, arguments, strict=False)]))

            return PREFIX + name, native.ffi.callback(kind, called)

        fakes = [
            fake("SetPipeline", number),
            fake("SetBindGroup", int, number, int, number),
            fake("DispatchWorkgroups", int, int, int),
        ]
        monkeypatch.setattr(native, "lib", Library(native.lib, dict(fakes)))
        bundle = native_bundle(recorded)
        assert bundle is not None
        handle = native.ffi.cast("WGPUComputePassEncoder", 0)
        bundle(SimpleNamespace(_internal=handle), 3)

        def remember(name, convert):
            return lambda *arguments: public.append((name, *convert(*arguments)))

        compute = SimpleNamespace(
            set_pipeline=remember("SetPipeline", lambda one: (number(one._internal),)),
            set_bind_group=remember(
                "SetBindGroup", lambda index, group: (index, number(group._internal), 0, 0)
            ),
            dispatch_workgroups=remember("DispatchWorkgroups", lambda *grid: grid),
        )
        queue.encode(compute, Batch(recorded, 3))
        assert direct == public
        assert [name for name, *_ in direct].count("SetPipeline") == 3 * 2
        assert len(direct) == 3 * (2 + 2 * len(recorded))

    @pytest.mark.parametrize("times", [1, 2, 5])
    def test_results(self, device, monkeypatch, times):
        found = []
        for bundle in (native_bundle, lambda _: None):
            monkeypatch.setattr(backends, "native_bundle", bundle)
            with gw.tidy():
                x = gw.tensor(np.linspace(0, 1, 70, dtype=np.float32))
                recording = grow(device, x)
                recording.replay(times)
                recording.replay()
                found.append(x.numpy())
                recording.close()
        assert np.array_equal(*found)
        assert found[0][0] == 2 ** (times + 1) - 1


@pytest.fixture(params=[native_bundle, lambda _: None], ids=["bundle", "public"])
def either(request, monkeypatch):
    """With and without a bundle: what follows must not differ."""
    monkeypatch.setattr(backends, "native_bundle", request.param)


@pytest.mark.usefixtures("either")
class TestErrors:
    def test_a_wrong_dispatch(self):
        """A buffer that is read and written; what was queued stays, until the device is closed."""
        with gw.Device() as device, gw.tidy():
            x = gw.tensor([1.0, 2.0])
            with Recording(device) as recording:
                dispatch(device, "activate", (1, 1, 1), {"x": x, "result": x}, {"count": 2})
            recording.replay()
            with pytest.raises(DeviceError, match=r"submitting work: .*conflicting usages"):
                device.queue.flush()
            device.queue.forget()
            recording.close()

    def test_a_lost_device(self):
        with gw.Device() as device:
            x = gw.tensor([1.0, 2.0])
            recording = grow(device, x)
            device.gpu.destroy()
            recording.replay(2)
            with pytest.raises(DeviceLostError, match="device is lost"):
                device.queue.flush()
            assert not device.is_open

    def test_a_pass_that_has_ended(self, device, recorded):
        """wgpu-native reports this at the call itself, and the caller hears of it there."""
        encoder = device.gpu.create_command_encoder()
        compute = encoder.begin_compute_pass()
        compute.end()
        batch = Batch(recorded, 1, backends.bundle(device.gpu, recorded))
        with pytest.raises(DeviceError, match="ended"), device.translated_errors():
            queue.encode(compute, batch)


def without_a_function(native, patch):
    patch.setattr(native, "lib", Library(native.lib, {PREFIX + "SetBindGroup": None}))


def with_other_arguments(native, patch):
    other = {PREFIX + "DispatchWorkgroups": native.lib.wgpuComputePassEncoderSetPipeline}
    patch.setattr(native, "lib", Library(native.lib, other))


def without_a_look_for_errors(native, patch):
    patch.delattr(type(native.libf), "_make_proxy_func")


def without_a_native_backend(native, patch):
    patch.setitem(sys.modules, native.__name__, None)


CHANGES = [
    without_a_function,
    with_other_arguments,
    without_a_look_for_errors,
    without_a_native_backend,
]


class TestNotTaken:
    @pytest.mark.parametrize("change", CHANGES)
    def test_where_wgpu_is_another(self, device, native, recorded, change):
        with pytest.MonkeyPatch.context() as patch:
            change(native, patch)
            assert native_bundle(recorded) is None
            with gw.tidy():
                x = gw.tensor([1.0, 2.0])
                recording = grow(device, x)
                recording.replay(2)
                assert x.tolist() == [7, 11]
                recording.close()
        assert native_bundle(recorded) is not None

    @pytest.mark.parametrize(
        "handle", [None, 7, "another kind", "no handle"], ids=lambda handle: str(handle)
    )
    def test_where_objects_have_other_handles(self, recorded, handle):
        pipeline, group, *rest = recorded[0]
        other = SimpleNamespace(_internal=handle)
        if handle == "another kind":
            other._internal = group._internal
        elif handle == "no handle":
            del other._internal
        assert native_bundle([*recorded, (other, group, *rest)]) is None
        assert native_bundle([*recorded, (pipeline, group, *rest)]) is not None
