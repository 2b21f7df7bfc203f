"""A future browser backend of wgpu takes precedence and is sufficient."""

from __future__ import annotations

import asyncio
import sys
import types

import pytest
import wgpu
from wgpu import classes

from gpt2_wgpu.tensors.creation import tensor_of_blob
from gpt2_wgpu.webgpu import backends

pytestmark = pytest.mark.native("fake modules of a browser")


@pytest.fixture
def browser(monkeypatch):
    """Our backend, imported as in a browser; every module is as it was afterwards."""
    names = ("js", "pyodide", "pyodide.code", "pyodide.ffi")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["pyodide.code"].run_js = sys.modules["pyodide.ffi"].to_js = None
    sys.modules["pyodide.ffi"].run_sync = sys.modules["pyodide.ffi"].JsException = None
    for name in ("", ".commands", ".device", ".script"):
        monkeypatch.delitem(sys.modules, f"gpt2_wgpu.webgpu.backends.browser{name}", raising=False)
    monkeypatch.setattr(wgpu, "gpu", wgpu.gpu)
    monkeypatch.setattr(wgpu.backends, "js_webgpu", None, raising=False)
    from gpt2_wgpu.webgpu.backends import browser

    yield browser
    for name in ("", ".commands", ".device", ".script"):
        sys.modules.pop(f"gpt2_wgpu.webgpu.backends.browser{name}", None)
    del backends.browser


@pytest.mark.parametrize("real", [True, False], ids=["a real one", "the stub"])
def test_ours_replaces_only_the_stub(browser, monkeypatch, real):
    theirs = types.ModuleType("wgpu.backends.js_webgpu")
    theirs.gpu = classes.GPU() if real else object()
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    wgpu.backends.js_webgpu = theirs
    wgpu.gpu = theirs.gpu  # importing it has registered it
    browser.register()
    expected = theirs.gpu if real else browser.gpu
    assert wgpu.gpu is expected
    assert wgpu.backends.js_webgpu.gpu is expected


class Blob:
    """As JavaScript's, of what ``upload_blob`` uses."""

    def __init__(self, data):
        self._data, self.size = data, len(data)

    def slice(self, begin, end):
        return Blob(self._data[begin:end])

    async def arrayBuffer(self):
        return types.SimpleNamespace(to_bytes=lambda: self._data)


@pytest.mark.parametrize("length", [1, 4, 7, 8, 9, 16, 19])
def test_blobs_are_written_in_pieces_where_the_queue_takes_none(device, monkeypatch, length):
    monkeypatch.setattr(backends, "_PIECE", 8)
    data = bytes(range(1, length + 3))

    async def use():
        words = await tensor_of_blob(device, Blob(data), 2, length + 2)
        found = (await words.data()).tobytes()
        words.dispose()
        return found

    assert asyncio.run(use()) == data[2:].ljust(-(-length // 4) * 4, b"\0")


def test_who_waits_for_a_loss_that_is_never_told_waits(device):
    async def use():
        await asyncio.wait_for(device.lost(), timeout=0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(use())
