"""Model names in a browser; ``js`` is a fake of its page or worker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.models.addresses import address_of
from gpt2_wgpu.weights import presets

pytestmark = pytest.mark.native("a fake of the browser's page")

HUB_PAGES = json.loads((Path(__file__).parents[1] / "hub_pages.json").read_text(encoding="utf-8"))
PAGE = SimpleNamespace(
    document=SimpleNamespace(baseURI="https://host/a/page.html?x=1#y"),
    location=SimpleNamespace(origin="https://host"),
)
WORKER = SimpleNamespace(location=SimpleNamespace(origin="https://host"))
NODE = SimpleNamespace()
HUB = "https://huggingface.co"
BASE = f"{HUB}/openai-community/gpt2/resolve"


@pytest.fixture
def runs_in(monkeypatch, tmp_path):
    """Makes this a browser whose global scope is the one given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(sys, "platform", "emscripten")
    return lambda scope: monkeypatch.setitem(sys.modules, "js", scope)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://host/m", "https://host/m/"),
        ("https://host/m/?token=1#top", "https://host/m/"),
        ("http://host:8000/m/config.json", "http://host:8000/m/"),
        ("https://host/m/model-00001-of-00002.safetensors", "https://host/m/"),
        ("https://host", "https://host/"),
        ("./models/mine", "https://host/a/models/mine/"),
        ("../mine/", "https://host/mine/"),
        ("/mine/vocab.json", "https://host/mine/"),
        ("some/models/mine", "https://host/a/some/models/mine/"),
        ("models/", "https://host/a/models/"),
        ("gpt2", f"{BASE}/main/"),
        ("hf://openai-community/gpt2", f"{BASE}/main/"),
        (" openai-community/gpt2@refs/pr/1 ", f"{BASE}/refs%2Fpr%2F1/"),
        ("hf://gpt2@c0ffee", f"{HUB}/gpt2/resolve/c0ffee/"),
        (f"{HUB}/openai-community/gpt2", f"{BASE}/main/"),
        (f"{HUB}/openai-community/gpt2/", f"{BASE}/main/"),
        (f"{HUB}/openai-community/gpt2/tree/refs%2Fpr%2F1", f"{BASE}/refs%2Fpr%2F1/"),
        (f"{HUB}/openai-community/gpt2/blob/main/config.json", f"{BASE}/main/"),
        (f"{HUB}/openai-community/gpt2/resolve/main/config.json", f"{BASE}/main/"),
        ("fairytales", None),
        ("nosuch", None),
        ("ftp://host/m", None),
        ("", None),
        ("./a\0b", None),
        ("~\0", None),
        ("/a\ud800", None),
    ],
)
def test_addresses_of_a_page(runs_in, given, meant):
    runs_in(PAGE)
    assert address_of(given) == meant


@pytest.mark.parametrize("given", ["https://", "https:///m", "http://[", "https://[x]/m"])
def test_a_malformed_address(runs_in, monkeypatch, given):
    runs_in(PAGE)
    with pytest.raises(PresetError, match="is not a valid address; an example is https://"):
        address_of(given)
    monkeypatch.setenv("HF_ENDPOINT", given)
    with pytest.raises(PresetError, match="is not a valid address; an example is https://"):
        address_of("gpt2")


def test_outside_a_browser_there_is_none(runs_in, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert address_of("https://host/m") is None


def test_a_directory_of_python_goes_first(runs_in, tmp_path):
    runs_in(PAGE)
    (tmp_path / "some" / "models").mkdir(parents=True)
    assert address_of("./some") is None
    assert address_of("some/models") is None
    assert address_of(str(tmp_path)) is None


def test_a_worker_has_no_page(runs_in):
    runs_in(WORKER)
    assert address_of("/models/mine") == "https://host/models/mine/"
    for relative in ("./mine", "../mine", "a/b/c", "mine/"):
        with pytest.raises(PresetError, match=rf"'{relative}' is relative to a page, .* worker"):
            address_of(relative)


@pytest.mark.parametrize("base", ["about:srcdoc", "blob:null/1", "data:text/html,x"])
def test_a_page_without_an_address(runs_in, base):
    runs_in(SimpleNamespace(document=SimpleNamespace(baseURI=base), location=PAGE.location))
    with pytest.raises(PresetError, match=f"'./mine' is relative to '{base}', which has no files"):
        address_of("./mine")
    runs_in(SimpleNamespace(location=SimpleNamespace(origin="null")))
    with pytest.raises(PresetError, match="which has no files"):
        address_of("/mine")


def test_node_has_files_only(runs_in):
    runs_in(NODE)
    assert address_of("./models/mine") is None
    assert address_of("/models/mine") is None


def test_a_mirror_of_the_hub(runs_in, monkeypatch):
    runs_in(PAGE)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    assert address_of("owner/name") == "https://mirror.example/hub/owner/name/resolve/main/"
    assert address_of(f"{HUB}/owner/name").startswith("https://mirror.example/hub/owner/name/")
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(PresetError, match=r"HF_ENDPOINT is 'mirror\.example': give the address"):
        address_of("gpt2")


@pytest.mark.parametrize(("page", "means"), HUB_PAGES)
def test_pages_of_the_hub(runs_in, monkeypatch, page, means):
    runs_in(PAGE)
    mirror = "https://mirror.example/hub"
    monkeypatch.setenv("HF_ENDPOINT", mirror)
    if means == "rejected":
        with pytest.raises(PresetError, match="is not the page of a model on the Hub"):
            address_of(page)
    elif means is None:
        assert address_of(page) == f"{page.rstrip('/')}/"
    else:
        name, _, revision = means.partition("@")
        assert address_of(page) == f"{mirror}/{name}/resolve/{quote(revision or 'main', safe='')}/"


def test_the_wheel_for_browsers_says_where_its_model_is(runs_in, monkeypatch):
    monkeypatch.setattr(presets, "_EMBEDDED_PLACES", ())
    with pytest.raises(PresetError, match=r"does not contain 'fairytales': pass the address"):
        presets.resolve("fairytales")
