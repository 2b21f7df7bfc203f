"""``convert``: results equal to rounding at load; errors; untouched files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import gpt2_wgpu as gw
from gpt2_wgpu import weight_formats
from gpt2_wgpu.errors import InvalidArgumentError, WeightsError
from gpt2_wgpu.tensors import Tensor
from gpt2_wgpu.webgpu.waiting import sync
from gpt2_wgpu.weights.safetensors import SafetensorsFile
from tests.models import checkpoints
from tests.weights.building import valid_file, write

pytestmark = pytest.mark.native("PyTorch")

EVERY = pytest.mark.parametrize("dtype", weight_formats.WEIGHT_FORMATS)
QUANTIZED = pytest.mark.parametrize("dtype", weight_formats.QUANTIZED)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A checkpoint whose heads, width and vocabulary are multiples of nothing."""
    model = checkpoints.make_model(
        n_embd=30, n_layer=2, n_head=3, n_inner=50, n_positions=17, vocab_size=101
    )
    return checkpoints.save(model, tmp_path_factory.mktemp("odd"))


def weights_of(directory, dtype):
    """The bytes of all weights on the GPU."""
    found = []

    def collect(value):
        if isinstance(value, Tensor):
            ((raw),) = sync(value.device.queue.read([(value.storage, 0, value.nbytes)]), "read")
            found.append(bytes(raw))
        elif isinstance(value, tuple):
            for item in value:
                collect(item)
        elif hasattr(value, "__dataclass_fields__"):
            for name in value.__dataclass_fields__:
                collect(getattr(value, name))

    with gw.GPT2CausalLM.from_preset(directory, None, dtype) as lm:
        collect(lm.backbone.weights)
        return found


@EVERY
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.usefixtures("no_leak")
def test_loading_gives_the_bits_of_rounding_at_load(device, odd, tmp_path, dtype, stored):
    from transformers import GPT2LMHeadModel

    source = checkpoints.save(GPT2LMHeadModel.from_pretrained(odd), tmp_path / "source", stored)
    path = gw.convert(source, tmp_path / "new", dtype)
    assert path == tmp_path / "new" / "model.safetensors"
    assert sorted(os.listdir(path.parent)) == [
        "config.json", "generation_config.json", "model.safetensors"
    ]  # fmt: skip
    assert (path.parent / "config.json").read_bytes() == (source / "config.json").read_bytes()
    expected = weights_of(source, dtype)
    assert len(expected) > 20
    assert weights_of(path.parent, dtype) == expected
    if dtype in ("q8", "q4"):
        assert weights_of(path.parent, None) == expected


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_transformers_reads_plain_types(device, odd, tmp_path, dtype):
    import torch
    from transformers import GPT2LMHeadModel

    gw.convert(odd, tmp_path, dtype)
    model = GPT2LMHeadModel.from_pretrained(tmp_path)
    expected = GPT2LMHeadModel.from_pretrained(odd).state_dict()
    for name, value in model.state_dict().items():
        exact = expected[name]
        if exact.ndim == 2 and "wpe" not in name:
            exact = exact.to(getattr(torch, dtype))
        assert torch.equal(value.float(), exact.float()), name


def test_the_embedded_model_goes_along_with_its_tokenizer(device, tmp_path):
    seen = []
    gw.convert("fairytales", tmp_path, "q8", on_progress=lambda *both: seen.append(both))
    assert seen[-1][0] == seen[-1][1] > 14_000_000
    with safe_open(tmp_path / "model.safetensors", "np") as file:  # the format's own reader
        assert file.metadata()["gpt2_wgpu_dtype"] == "q8"
        assert file.get_tensor("wte.weight").shape == (4096, 68)
    with gw.GPT2CausalLM.from_preset(tmp_path) as lm:
        assert lm.backbone.dtype == "q8"
        assert lm.generate("Once upon a time", max_length=12).startswith("Once upon a time")


def test_nothing_is_replaced_unless_forced(device, odd, tmp_path):
    path = gw.convert(odd, tmp_path, "q8")
    before = path.read_bytes()
    with pytest.raises(InvalidArgumentError, match=r"already has a config.json.*--force"):
        gw.convert(odd, tmp_path, "q4")
    assert path.read_bytes() == before
    gw.convert(odd, tmp_path, "q4", force=True)
    assert path.read_bytes() != before
    with pytest.raises(InvalidArgumentError, match="is the source itself"):
        gw.convert(odd, odd, "q8", force=True)
    with pytest.raises(InvalidArgumentError, match="is a file"):
        gw.convert(odd, path, "q8", force=True)


def shard(directory, *names):
    """Make its weights shards of these names, with an index."""
    names = names or ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    (directory / "model.safetensors").rename(directory / names[0])
    for name in names[1:]:
        write(directory / name, valid_file({}))
    weight_map = {str(number): name for number, name in enumerate(names)}
    index = json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(index)
    return names


@pytest.mark.parametrize("names", [(), ("first.safetensors", "second.safetensors")])
def test_old_shards_are_replaced(device, odd, tmp_path, names):
    gw.convert(odd, tmp_path, "float32")
    shard(tmp_path, *names)
    (tmp_path / "adapter.safetensors").write_text("not of this model")
    (tmp_path / "config.json").unlink()
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(InvalidArgumentError, match="--force"):
        gw.convert(odd, tmp_path, "q8")
    gw.convert(odd, tmp_path, "q8", force=True)
    assert sorted(os.listdir(tmp_path)) == [
        "adapter.safetensors", "config.json", "generation_config.json", "model.safetensors"
    ]  # fmt: skip


def test_at_no_time_are_new_files_beside_old_shards(device, odd, tmp_path, monkeypatch):
    gw.convert(odd, tmp_path, "float32")
    old_weights = {*shard(tmp_path), "model.safetensors.index.json"}
    old = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    states = []
    replace = Path.replace

    def noted(source, target):
        replace(source, target)
        there = {path.name: path.stat().st_ino for path in tmp_path.iterdir() if path.is_file()}
        states.append(there)

    monkeypatch.setattr(Path, "replace", noted)
    gw.convert(odd, tmp_path, "q8", force=True)
    assert len(states) >= 8
    for there in states:
        if any(old.get(name) != number for name, number in there.items()):
            assert not old_weights & there.keys()
    assert len(old_weights & states[0].keys()) == 2  # a shard goes before all else


@QUANTIZED
def test_what_is_rounded_stays_as_it_is(device, odd, tmp_path, dtype):
    gw.convert(odd, tmp_path, dtype)
    with pytest.raises(WeightsError, match=f"is already {dtype}; convert the original"):
        gw.convert(tmp_path, tmp_path / "again", "float16")
    with pytest.raises(
        WeightsError, match=f"holds weights in {dtype}, which cannot become float16"
    ):
        gw.GPT2CausalLM.from_preset(tmp_path, None, "float16")


def test_a_write_that_fails_leaves_what_was_there(device, odd, tmp_path, monkeypatch):
    path = gw.convert(odd, tmp_path, "q8")
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt2_wgpu.weights.writer.os.fsync", fail)
    with pytest.raises(WeightsError, match="cannot be written: No space left"):
        gw.convert(odd, tmp_path, "q4", force=True)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_conversion_that_fails_can_be_tried_again(device, tmp_path, monkeypatch):
    def room_for_small_files(descriptor):
        if os.fstat(descriptor).st_size > 2**20:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gpt2_wgpu.weights.writer.os.fsync", room_for_small_files)
        with pytest.raises(WeightsError, match="cannot be written: No space left"):
            gw.convert("fairytales", tmp_path, "q4")
    assert list(tmp_path.iterdir()) == []
    gw.convert("fairytales", tmp_path, "q4")
    with gw.GPT2CausalLM.from_preset(tmp_path) as lm:
        assert lm.backbone.dtype == "q4"


def test_a_place_that_cannot_be_written(device, odd, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be created"):
        gw.convert(odd, tmp_path / "file" / "under", "q8")


# --- files that others wrote ----------------------------------------------------------------------


def rewritten(directory, change):
    """Writes the file of ``directory`` again with its tensors and metadata changed."""
    with SafetensorsFile(directory / "model.safetensors") as file:
        metadata = dict(file.metadata)
        tensors = {
            name: (entry.dtype, list(entry.shape), bytes(file.read(name)))
            for name, entry in file.tensors.items()
        }
    change(tensors, metadata)
    write(directory / "model.safetensors", valid_file(tensors, metadata))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, m: m.update(gpt2_wgpu_layout="2"), "layout '2'.*convert the original again"),
        (lambda _, m: m.update(gpt2_wgpu_dtype="q3"), "quantised as 'q3'"),
        (lambda _, m: m.update(gpt2_wgpu_dtype="q4"), r"instead of \[\d+, 36\]"),
        (lambda _, m: m.clear(), r"wte.weight is \[\d+, 68\] instead of \[101, 30\]"),
        (lambda t, _: t.update({"wte.weight": ("F32", *t["wte.weight"][1:])}), "dtype F32.*U32"),
        (lambda t, _: t.pop("wte.weight"), "wte.weight .* is missing"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(device, odd, tmp_path, change, message):
    gw.convert(odd, tmp_path, "q8")
    rewritten(tmp_path, change)
    held = gw.memory().num_bytes_in_gpu
    with pytest.raises(WeightsError, match=message):
        gw.GPT2CausalLM.from_preset(tmp_path, None)
    assert gw.memory().num_bytes_in_gpu == held


def test_foreign_quantised_weights_are_refused(device, odd, tmp_path):
    gw.convert(odd, tmp_path, "float32")

    def to_int8(tensors, _):
        _, shape, data = tensors["h.0.mlp.c_fc.weight"]
        values = np.frombuffer(data, np.float32).astype(np.int8)
        tensors["h.0.mlp.c_fc.weight"] = ("I8", shape, values.tobytes())

    rewritten(tmp_path, to_int8)
    with pytest.raises(WeightsError, match=r"c_fc.weight' has dtype I8; supported are F32, F16"):
        gw.GPT2CausalLM.from_preset(tmp_path, None)


def test_config_of_another_model(device, odd, tmp_path):
    gw.convert(odd, tmp_path, "q8")
    config = json.loads((tmp_path / "config.json").read_text()) | {"vocab_size": 60}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"do not fit config.json"):
        gw.GPT2CausalLM.from_preset(tmp_path, None)
