"""Default weight dtype: measured once on a CPU adapter, never on a GPU."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.integrations import web_worker
from gpt2_wgpu.models import default_dtype as module
from gpt2_wgpu.models import remembered
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.webgpu.waiting import sync

pytestmark = pytest.mark.native("files of the user")

CONFIG = GPT2Config(n_embd=64, n_head=2, n_layer=1)
SLOWER, FASTER = {"float16": 1.0, "q8": 0.95}, {"float16": 1.0, "q8": 0.5}


@pytest.fixture
def measured(device, monkeypatch, tmp_path):
    """Nothing is remembered. What measuring finds; ``calls`` counts how often it was asked."""

    class Measured:
        seconds = FASTER
        calls = 0
        path = tmp_path / "caches" / "gpt2-wgpu" / "default_dtype.json"

    async def seconds_of_products(device, dtypes):
        Measured.calls += 1
        if isinstance(Measured.seconds, Exception):
            raise Measured.seconds
        assert dtypes == ("float16", "q8")
        return Measured.seconds

    monkeypatch.setattr(device, "info", replace(device.info, adapter_type="CPU"))
    monkeypatch.setattr(module, "seconds_of_products", seconds_of_products)
    monkeypatch.setattr(remembered, "directory", lambda: Measured.path and Measured.path.parent)
    monkeypatch.setattr(module, "_measured", {})
    return Measured


def chosen(device, config=CONFIG):
    """The default, and what was said about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dtype = sync(module.default_dtype(device, config), "")
    return dtype, [str(warning.message) for warning in caught]


def forget(monkeypatch):
    """What a new process knows."""
    monkeypatch.setattr(module, "_measured", {})


def test_the_faster_is_taken_and_told(device, measured):
    dtype, said = chosen(device)
    assert dtype == "q8"
    (line,) = said
    assert line.startswith(f"running on the CPU ({device.info.name})")
    assert "with q8 weights, 2.0 times as fast as float16 here" in line
    assert "\n" not in line


@pytest.mark.parametrize("seconds", [SLOWER, {"float16": 0.5, "q8": 1.0}])
def test_float16_is_no_news(device, measured, seconds):
    measured.seconds = seconds
    assert chosen(device) == ("float16", [])


def test_a_gpu_is_never_measured(device, measured, monkeypatch):
    for kind in ("DiscreteGPU", "IntegratedGPU", "unknown"):
        monkeypatch.setattr(device, "info", replace(device.info, adapter_type=kind))
        assert chosen(device) == ("float16", [])
    assert measured.calls == 0
    assert not measured.path.exists()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"n_embd": 96, "n_head": 8}, "q8"),  # heads of 12 are padded to 16: 128
        ({"n_embd": 96, "n_head": 4, "n_inner": 160}, "q8"),
        ({"n_embd": 48}, "float16"),
        ({"n_inner": 100}, "float16"),
    ],
)
def test_lines_of_other_than_whole_blocks_are_never_measured(device, measured, sizes, expected):
    assert chosen(device, replace(CONFIG, **sizes))[0] == expected
    assert measured.calls == (expected == "q8")


def test_a_dtype_that_is_given_or_stored_is_never_measured(device, measured, tmp_path):
    gw.convert("fairytales", tmp_path / "q4", "q4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cases = (("fairytales", "float16", "float16"), (tmp_path / "q4", None, "q4"))
        for source, given, expected in cases:
            with gw.GPT2CausalLM.from_preset(source, None, given) as lm:
                assert lm.backbone.dtype == expected
        backbone = gw.GPT2Backbone(20, 1, 1, 8, 8)
        assert backbone.dtype == "float32"
        backbone.dispose()
    assert measured.calls == 0


def test_a_model_gets_it(device, measured):
    with (
        pytest.warns(UserWarning, match='with q8 weights, .*pass dtype="float16"') as caught,
        gw.GPT2CausalLM.from_preset("fairytales") as lm,
    ):
        assert lm.backbone.dtype == "q8"
        assert lm.backbone.weights.wte.dtype == "q8"
    assert [warning.filename for warning in caught] == [__file__]  # the caller's line, not ours
    with pytest.warns(UserWarning, match="with q8 weights"):  # each time: the choice is the same
        backbone = gw.GPT2Backbone.from_preset("fairytales")
    assert backbone.dtype == "q8"
    backbone.dispose()
    assert measured.calls == 1


def test_an_adapter_is_measured_once(device, measured, monkeypatch):
    for _ in range(2):
        assert chosen(device)[0] == "q8"
    forget(monkeypatch)
    measured.seconds = SLOWER
    assert chosen(device)[0] == "q8"  # from the file
    assert measured.calls == 1
    for key in ("name", "driver", "backend"):
        with monkeypatch.context() as patch:
            patch.setattr(device, "info", replace(device.info, **{key: "another"}))
            assert chosen(device)[0] == "float16"
    for target, name in ((module, "kernel_hash"), (module.platform, "node")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, lambda: "another")
            assert chosen(device)[0] == "float16"
    assert measured.calls == 6
    forget(monkeypatch)
    assert chosen(device)[0] == "q8"  # the others were added, nothing was lost
    assert len(json.loads(measured.path.read_text())) == 6
    assert [path.name for path in measured.path.parent.iterdir()] == [measured.path.name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'"q8"',
        b"{}",
        b'{"ADAPTER": 3}',
        b'{"ADAPTER": "q8"}',
        b'{"ADAPTER": {"float16": 1.0}}',
        b'{"ADAPTER": {"float16": 1.0, "q8": 0.5, "q4": 0.1}}',
        b'{"ADAPTER": {"float16": 1.0, "q8": 0.0}}',
        b'{"ADAPTER": {"float16": 1.0, "q8": -2.0}}',
        b'{"ADAPTER": {"float16": 1.0, "q8": "0.5"}}',
        b'{"ADAPTER": {"float16": 1.0, "q8": null}}',
        b'{"ADAPTER": {"float16": 1e999, "q8": 1.0}}',
        b'{"ADAPTER": {"float16": NaN, "q8": 1.0}}',
    ],
)
def test_a_file_that_makes_no_sense_is_replaced(device, measured, monkeypatch, content):
    chosen(device)
    (adapter,) = json.loads(measured.path.read_text())
    forget(monkeypatch)
    measured.path.write_bytes(content.replace(b"ADAPTER", adapter.encode()))
    measured.seconds = SLOWER
    assert chosen(device) == ("float16", [])
    assert measured.calls == 2
    assert json.loads(measured.path.read_text())[adapter] == SLOWER


def test_where_nothing_can_be_kept_it_is_measured_again(device, measured, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "directory" / "default_dtype.json").mkdir(parents=True)
    for path in (tmp_path / "file" / "x", tmp_path / "directory" / "default_dtype.json", None):
        measured.path = path
        for _ in range(2):
            assert chosen(device)[0] == "q8"
        forget(monkeypatch)
    assert measured.calls == 3
    assert len(list((tmp_path / "directory").iterdir())) == 1


def test_without_room_to_measure_it_is_float16_this_time(device, measured):
    measured.seconds = OutOfGPUMemoryError("no room")
    assert chosen(device) == ("float16", [])
    measured.seconds = FASTER
    assert chosen(device)[0] == "q8"


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    ending = "gpt2-wgpu"
    assert remembered.directory() == tmp_path / ".cache" / ending
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert remembered.directory() == tmp_path / "elsewhere" / ending
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # not to be obeyed, says its specification
    assert remembered.directory() == tmp_path / ".cache" / ending
    monkeypatch.setattr(sys, "platform", "darwin")
    assert remembered.directory() == tmp_path / "Library" / "Caches" / ending
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert remembered.directory() == tmp_path / "Local" / ending
    monkeypatch.setattr(sys, "platform", "emscripten")
    assert remembered.directory() is None


@pytest.mark.parametrize(
    ("given", "seconds", "checked"),
    [
        (None, FASTER, "q8"),
        (None, SLOWER, "float16"),
        (None, OutOfGPUMemoryError("full"), "float16"),
        ("q7", FASTER, "q8"),  # `load` rejects it
        ("q4", FASTER, "q4"),
    ],
)
def test_a_page_checks_the_format_of_its_model(
    device, measured, monkeypatch, given, seconds, checked
):
    """While the model is downloaded; what was measured is not measured again, or warned about."""

    async def opened():
        return device

    async def require(device, dtype):
        formats.append(dtype)

    formats, measured.seconds = [], seconds
    monkeypatch.setattr(gw.webgpu, "default_device_async", opened)
    monkeypatch.setattr(web_worker, "require_right_results", require)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sync(web_worker.open_device(given), "")
    assert formats == [checked]
    if given is None:
        assert chosen(device)[0] == checked
        assert measured.calls == (2 if isinstance(seconds, Exception) else 1)
