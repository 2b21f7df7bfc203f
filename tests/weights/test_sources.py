"""Names to directories: real huggingface_hub against a Hub and a cache on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.errors
import pytest

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.weights.sources import NEEDED_FILES, resolve_directory
from tests.weights.building import json_file
from tests.weights.fake_hub import COMMIT, serve

ROOT = Path(__file__).parents[2]
MODEL = {
    "config.json": b"{}",
    "model.safetensors": json_file({}),
    "vocab.json": b"{}",
    "merges.txt": b"#version: 0.2\n",
}
UNREACHABLE = "http://127.0.0.1:9"  # the discard port: nothing answers there
SCRIPT = """
import json, sys, time
from gpt2_wgpu.weights.sources import resolve_directory
outcomes = []
for name in json.loads(sys.argv[1]):
    told, start = [], time.monotonic()
    try:
        outcome = {"path": str(resolve_directory(name, told.append))}
    except Exception as error:
        outcome = {"error": type(error).__name__, "message": str(error),
                   "hidden": error.__suppress_context__ or error.__context__ is None}
    outcomes.append({**outcome, "told": told, "seconds": time.monotonic() - start})
print(json.dumps(outcomes))
"""


@dataclass
class Outcome:
    """What `resolve_directory` did with one name."""

    told: list[str]
    seconds: float
    path: str = ""
    error: str = ""
    message: str = ""
    hidden: bool = False


def resolve_in_process(home: Path, names: list[str], **environment: str) -> list[Outcome]:
    """Resolve names in a fresh process, whose huggingface_hub reads this environment."""
    clean = {k: v for k, v in os.environ.items() if "PROXY" not in k.upper() and k[:3] != "HF_"}
    environment |= {"HF_HOME": str(home), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(names)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [Outcome(**outcome) for outcome in json.loads(process.stdout)]


def fill_cache(home: Path, repository: str, files: dict[str, bytes]) -> Path:
    """Lay out a snapshot as the Hub's cache has it."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


def test_directory_is_returned_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not even imported
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_directory(tmp_path) == tmp_path
    assert resolve_directory(str(tmp_path)) == tmp_path
    assert resolve_directory("owner/name") == Path("owner/name")


@pytest.mark.parametrize(
    "name", ["nothing", "", "hf://", "hf://a/b/c", "a/b/c", "/no/where", "a b/c", "x/\ny", "a/b\0"]
)
def test_what_is_neither_directory_nor_hub_id(name: str) -> None:
    with pytest.raises(PresetError, match="neither a directory nor a hub id"):
        resolve_directory(name)


@pytest.mark.parametrize("name", ["hf://owner/..", "owner/--name", "hf://owner/name.git"])
def test_ids_that_the_hub_itself_refuses(name: str) -> None:
    with pytest.raises(PresetError, match="is not a valid hub id"):
        resolve_directory(name)


@pytest.mark.parametrize("revision", ["a b", "x\0", "\udc80", "a\n", "main@x", "r" * 256, "v^1"])
def test_what_cannot_be_a_revision_is_not_asked_for(revision: str) -> None:
    with pytest.raises(PresetError, match="cannot be a branch, a tag or a commit") as caught:
        resolve_directory(f"owner/name@{revision}")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "executable", "/my venv/bin/python")
    remedy = "from the Hugging Face Hub: '/my venv/bin/python' -m pip install 'gpt2-wgpu[hub]'"
    for name, message in {
        "hf://x": f"to fetch x {remedy}",
        "owner/x": f"'owner/x' is not a directory; to fetch owner/x {remedy}",
    }.items():
        with pytest.raises(PresetError) as caught:
            resolve_directory(name)
        assert str(caught.value) == message
        assert caught.value.__suppress_context__


def test_download_then_cache_without_a_request(tmp_path: Path) -> None:
    useless = {
        "flax_model.msgpack": b"x",
        "pytorch_model.bin": b"x",
        "onnx/model.safetensors": b"x",
    }
    with serve({"owner/name": {**MODEL, **useless}}) as (address, requests):
        names = ["hf://owner/name", "owner/name", "owner/name@main"]
        first, *others = resolve_in_process(tmp_path, names, HF_ENDPOINT=address)
        assert first.message == ""
        fetched = {path.name: path.read_bytes() for path in Path(first.path).rglob("*")}
        assert fetched == MODEL
        assert first.told == ["fetching owner/name from the Hugging Face Hub"]
        assert [(other.path, other.told) for other in others] == [(first.path, [])] * 2
        count = len(requests)
        (again,) = resolve_in_process(tmp_path, ["hf://owner/name"], HF_ENDPOINT=address)
        assert again.path == first.path
        assert len(requests) == count
        (pinned,) = resolve_in_process(tmp_path, [f"owner/name@{COMMIT}"], HF_ENDPOINT=UNREACHABLE)
        assert pinned.path == first.path


def test_what_the_hub_refuses_is_one_line_each(tmp_path: Path) -> None:
    no_weights = {"config.json": b"{}", "pytorch_model.bin": b"x", "vocab.json": b"{}"}
    no_tokenizer = {"config.json": b"{}", "model.safetensors": json_file({})}
    expected = {
        "owner/missing": "'owner/missing' is neither a directory nor a public repository",
        "hf://owner/missing": "'owner/missing' is not a public repository on the Hub; check",
        "owner/gated": "owner/gated on the Hub is gated: accept its terms",
        "owner/name@none": "owner/name on the Hub has no revision 'none'",
        "owner/pickle": "owner/pickle on the Hub has no safetensors weights, merges.txt; convert",
        "owner/mute": "owner/mute on the Hub has no tokenizer (vocab.json",
        "owner/empty": "owner/empty on the Hub has no config.json",
    }
    repositories = {
        "owner/name": MODEL,
        "owner/gated": 403,
        "owner/pickle": no_weights,
        "owner/mute": no_tokenizer,
        "owner/empty": {"README.md": b"x"},
    }
    with serve(repositories) as (address, _):
        outcomes = resolve_in_process(tmp_path, list(expected), HF_ENDPOINT=address)
    for start, outcome in zip(expected.values(), outcomes, strict=True):
        assert outcome.error == "PresetError"
        assert outcome.message.startswith(start)
        assert "\n" not in outcome.message


def test_sharded_repository(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00001.safetensors": json_file({}),
    }
    with serve({"owner/large": files}) as (address, _):
        (outcome,) = resolve_in_process(tmp_path, ["owner/large"], HF_ENDPOINT=address)
    assert {path.name for path in Path(outcome.path).iterdir()} == set(files)
    (Path(outcome.path) / "model-00001-of-00001.safetensors").unlink()
    (cut,) = resolve_in_process(tmp_path, ["owner/large"], HF_HUB_OFFLINE="1")
    assert cut.message.startswith(
        "owner/large is in the local cache without model-00001-of-00001.safetensors, and the Hub"
    )


@pytest.mark.skipif(
    not hasattr(huggingface_hub.errors, "IncompleteSnapshotError"),
    reason="this huggingface_hub does not remember what a repository holds",
)
def test_snapshot_that_lacks_an_optional_file_is_completed(tmp_path: Path) -> None:
    """Without tokenizer_config.json a model would load, but might read its prompts otherwise."""
    files = {**MODEL, "tokenizer_config.json": b"{}"}
    with serve({"owner/name": files}) as (address, _):
        (outcome,) = resolve_in_process(tmp_path, ["owner/name"], HF_ENDPOINT=address)
        (Path(outcome.path) / "tokenizer_config.json").unlink()
        (cut,) = resolve_in_process(tmp_path, ["owner/name"], HF_HUB_OFFLINE="1")
        assert cut.message.startswith("owner/name is in the local cache without some files, and")
        (whole,) = resolve_in_process(tmp_path, ["owner/name"], HF_ENDPOINT=address)
        assert {path.name for path in Path(whole.path).iterdir()} == set(files)


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": UNREACHABLE}])
def test_offline(environment: dict[str, str], tmp_path: Path) -> None:
    snapshot = fill_cache(tmp_path, "owner/cached", MODEL)
    fill_cache(tmp_path, "owner/partial", {"config.json": b"{}", "vocab.json": b"{}"})
    states = {
        "owner/partial": "in the local cache without safetensors weights, merges.txt",
        "owner/absent": "not in the local cache",
        "owner/cached@zz": "not in the local cache",
    }
    names = ["owner/cached", *states]
    cached, *others = resolve_in_process(tmp_path, names, **environment)
    assert cached.path == str(snapshot)
    assert cached.told == []
    for name, outcome in zip(names[1:], others, strict=True):
        assert outcome.error == "PresetError"
        assert outcome.message.startswith(
            f"{name} is {states[name]}, and the Hub cannot be reached (offline?); connect once"
        )
        assert "\n" not in outcome.message
        assert outcome.hidden  # no page-long chain of HTTP errors below it
        assert outcome.seconds < 10


def fail_online(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[dict[str, Any]]:
    """Make huggingface_hub find nothing in the cache and fail online; return its calls."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        calls.append({"repository": repository, **options})
        if options.get("local_files_only"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("odd\nmore"), ValueError()]
)
def test_any_other_failure_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fail_online(monkeypatch, error)
    with pytest.raises(PresetError, match=f"fetched from the Hub: {type(error).__name__}: "):
        resolve_directory("hf://owner/name@refs/pr/1")
    assert [call.get("local_files_only", False) for call in calls] == [True, False]
    for call in calls:
        assert call["repository"] == "owner/name"
        assert call["revision"] == "refs/pr/1"
        assert call["allow_patterns"] == list(NEEDED_FILES)


def test_message_of_another_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_online(monkeypatch, RuntimeError("odd\nmore"))
    with pytest.raises(PresetError) as caught:
        resolve_directory("gpt2/x")
    assert str(caught.value) == "gpt2/x could not be fetched from the Hub: RuntimeError: odd"


def test_ctrl_c_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "snapshot_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resolve_directory("owner/name")
