"""Download of a model's files in a page's Python; ``js`` is a fake."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt2_wgpu.errors import GPT2WGPUError, PresetError
from gpt2_wgpu.models import GPT2CausalLM, fetching

pytestmark = pytest.mark.native("a fake of the browser's fetch")

FAIRYTALES = Path(__file__).parents[2] / "models" / "fairytales"
ADDRESS = "https://host/model/"
WEB_PAGE = (200, "text/html; charset=utf-8", "<!doctype html>")


class JsException(Exception):
    pass


@pytest.fixture
def host(monkeypatch):
    """File name → (status, content type, contents); what is not named is a 404."""
    files = {}

    async def fetch(address):
        if not files:
            raise JsException("Failed to fetch")
        status, kind, contents = files.get(address.removeprefix(ADDRESS), (404, "", ""))

        async def blob():
            return contents

        return SimpleNamespace(
            status=status, ok=status == 200, headers={"Content-Type": kind}, blob=blob
        )

    monkeypatch.setitem(sys.modules, "js", SimpleNamespace(fetch=fetch))
    monkeypatch.setitem(sys.modules, "pyodide", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pyodide.ffi", SimpleNamespace(JsException=JsException))
    return files


def plain(*names):
    return {name: (200, "application/octet-stream", name) for name in names}


def fetched():
    return asyncio.run(fetching.fetch_files(ADDRESS))


def test_one_file_of_weights_and_a_tokenizer(host):
    host |= plain("config.json", "model.safetensors", "tokenizer.json", "README.md")
    assert fetched().keys() == {"config.json", "model.safetensors", "tokenizer.json"}


def test_optional_files_are_fetched(host):
    extras = ("generation_config.json", "added_tokens.json", "special_tokens_map.json")
    host |= plain("config.json", "model.safetensors", "tokenizer.json", *extras)
    assert {*extras} < fetched().keys()
    del host["tokenizer.json"]
    host |= plain("vocabulary.json", "merges.txt")
    assert {*extras, "vocabulary.json"} < fetched().keys()


def test_the_files_of_an_adapter(host):
    host |= plain("adapter_config.json", "adapter_model.safetensors", "README.md")
    found = asyncio.run(fetching.fetch_adapter(ADDRESS))
    assert found.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    with pytest.raises(PresetError, match=r"adapter_config\.json is a LoRA adapter and no model"):
        fetched()
    del host["adapter_model.safetensors"]
    with pytest.raises(PresetError, match=r"has no adapter_model.* directory of a LoRA adapter\?"):
        asyncio.run(fetching.fetch_adapter(ADDRESS))


def test_a_web_page_in_place_of_a_file_is_no_file(host):
    """Hosts with one front page for all addresses say 200 to everything."""
    host |= plain("config.json", "model.safetensors", "vocab.json", "merges.txt")
    host["tokenizer.json"] = WEB_PAGE
    assert fetched().keys() == {"config.json", "model.safetensors", "vocab.json", "merges.txt"}
    host["config.json"] = WEB_PAGE
    with pytest.raises(PresetError, match=r"host/model/ has no config\.json"):
        fetched()


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "vocab.json"])
def test_what_lacks_is_named(host, lacking):
    host |= plain("config.json", "model.safetensors", "vocab.json", "merges.txt")
    del host[lacking]
    with pytest.raises(PresetError, match=lacking):
        fetched()


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, r" \(it is private, needs a login, or does not exist\)"),
        (418, "$"),
        (429, r" \(too many requests: try again"),
        (503, r" \(the server has a problem: try again later\)"),
    ],
)
def test_other_answers_are_told(host, status, why):
    host["config.json"] = (status, "", "")
    said = rf"config\.json: the server answers with status {status}{why}"
    with pytest.raises(PresetError, match=said):
        fetched()


def test_a_host_that_cannot_be_reached(host, monkeypatch):
    with pytest.raises(PresetError, match=r"cannot be reached \(offline\?\), .* read it$"):
        fetched()
    monkeypatch.setenv("HF_ENDPOINT", "https://host")
    with pytest.raises(PresetError, match=r"HF_ENDPOINT.* may name a mirror"):
        fetched()


def test_messages_name_the_model_and_not_its_revision():
    assert fetching.name_of(ADDRESS) == "model"
    assert fetching.name_of("https://huggingface.co/owner/name/resolve/main/") == "name"


class Bytes:
    """What the package asks of a ``Blob``."""

    def __init__(self, data):
        self.data = data
        self.size = len(data)

    def slice(self, start, stop):
        return Bytes(self.data[start:stop])

    async def arrayBuffer(self):
        return SimpleNamespace(to_bytes=lambda: self.data)


@pytest.mark.parametrize("damaged", ["config.json", "vocab.json", "merges.txt"])
def test_a_damaged_file_is_named_without_the_folder_it_was_put_into(damaged):
    blobs = {path.name: Bytes(path.read_bytes()) for path in FAIRYTALES.iterdir()}
    blobs[damaged] = Bytes(b"{")
    with pytest.raises(GPT2WGPUError) as caught:
        asyncio.run(GPT2CausalLM.from_blobs(blobs, name="mine"))
    assert str(caught.value).startswith(f"mine/{damaged}")
