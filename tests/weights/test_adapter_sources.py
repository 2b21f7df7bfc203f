"""Names of LoRA adapters: paths, and the real huggingface_hub with a local Hub and cache."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.weights.sources import resolve_adapter
from tests.weights.building import json_file
from tests.weights.fake_hub import serve
from tests.weights.test_sources import MODEL, UNREACHABLE, resolve_in_process


def test_an_adapter_of_the_hub(tmp_path: Path) -> None:
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": json_file({})}
    hub: dict[str, Any] = {
        "owner/lora": {**adapter, "README.md": b"x"},
        "owner/name": MODEL,
        "owner/no": 404,
    }
    with serve(hub) as (address, requests):
        names = ["owner/lora", "hf://owner/lora@main", "owner/name", "owner/no"]
        first, second, model, none = resolve_in_process(
            tmp_path, [f"adapter {name}" for name in names], HF_ENDPOINT=address
        )
        assert first.message == second.message == ""
        assert {path.name: path.read_bytes() for path in Path(first.path).iterdir()} == adapter
        assert second.path == first.path
        assert model.message == (
            "owner/name on the Hub has no adapter_config.json, so it holds no LoRA adapter"
        )
        assert none.message.startswith("'owner/no' is neither a directory nor a public repository")
        count = len(requests)
        (again,) = resolve_in_process(tmp_path, ["adapter owner/lora"], HF_ENDPOINT=UNREACHABLE)
        assert (again.path, len(requests)) == (first.path, count)
    (lacking,) = resolve_in_process(tmp_path, ["adapter owner/other"], HF_ENDPOINT=UNREACHABLE)
    assert lacking.message.startswith("owner/other is not in the local cache, and the Hub cannot")


@pytest.mark.parametrize("name", ["adapter", "./owner/name", "/no/where", "a/b/c", "../a"])
def test_paths_of_adapters_are_not_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert resolve_adapter(name) == Path(name)
    with pytest.raises(PresetError, match="only hf:// addresses and pages of the Hub"):
        resolve_adapter("https://example.org/adapter")
