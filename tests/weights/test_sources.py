"""Resolution of names: the real huggingface_hub with a local Hub and cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.errors
import pytest

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.weights.presets import resolve as resolve_preset
from gpt2_wgpu.weights.sources import hub_page, resolve_directory
from tests.weights.building import json_file
from tests.weights.fake_hub import COMMIT, serve

ROOT = Path(__file__).parents[2]
HUB_PAGES = json.loads((ROOT / "tests" / "hub_pages.json").read_text(encoding="utf-8"))
MODEL = {
    "config.json": b"{}",
    "model.safetensors": json_file({}),
    "vocab.json": b"{}",
    "merges.txt": b"#version: 0.2\n",
}
UNREACHABLE = "http://127.0.0.1:9"  # the discard port: nothing answers there
SCRIPT = """
import json, sys, time
from gpt2_wgpu.weights.sources import resolve_adapter, resolve_directory
outcomes = []
for name in json.loads(sys.argv[1]):
    reported, start = [], time.monotonic()
    adapter, config = name.removeprefix("adapter "), name.removeprefix("config ")
    try:
        if adapter != name:
            outcome = {"path": str(resolve_adapter(adapter))}
        else:
            found = resolve_directory(config, reported.append, weights=config == name)
            outcome = {"path": str(found)}
    except Exception as error:
        outcome = {"error": type(error).__name__, "message": str(error),
                   "hidden": error.__suppress_context__ or error.__context__ is None}
    outcomes.append({**outcome, "reported": reported, "seconds": time.monotonic() - start})
print(json.dumps(outcomes))
"""


@dataclass
class Outcome:
    """What `resolve_directory` did with one name."""

    reported: list[str]
    seconds: float
    path: str = ""
    error: str = ""
    message: str = ""
    hidden: bool = False


def resolve_in_process(home: Path, names: list[str], **environment: str) -> list[Outcome]:
    """Resolve names in a fresh process, whose huggingface_hub reads this environment."""
    process = resolving_process(home, names, **environment)
    return [Outcome(**outcome) for outcome in json.loads(process.stdout)]


def resolving_process(
    home: Path, names: list[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Such a process, which has ended."""
    clean = {k: v for k, v in os.environ.items() if "PROXY" not in k.upper() and k[:3] != "HF_"}
    environment |= {"HF_HOME": str(home), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(names)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def fill_cache(home: Path, repository: str, files: dict[str, bytes]) -> Path:
    """Write a snapshot as the Hub's cache has it."""
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


def test_a_model_without_weights_downloads_none(tmp_path: Path) -> None:
    """The weights come with a later call that needs them."""
    with serve({"owner/name": MODEL}) as (address, requests):
        (config,) = resolve_in_process(tmp_path, ["config owner/name"], HF_ENDPOINT=address)
        names = {path.name for path in Path(config.path).iterdir()}
        assert names == {*MODEL} - {"model.safetensors"}
        assert not [each for each in requests if "safetensors" in each]
        count = len(requests)
        again, whole = resolve_in_process(
            tmp_path, ["config owner/name", "owner/name"], HF_ENDPOINT=address
        )
        assert again.reported == []
        assert len(requests) > count
        assert whole.path == config.path
        assert (Path(whole.path) / "model.safetensors").exists()


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
        assert first.reported == ["fetching owner/name from the Hugging Face Hub"]
        assert [(other.path, other.reported) for other in others] == [(first.path, [])] * 2
        count = len(requests)
        (again,) = resolve_in_process(tmp_path, ["hf://owner/name"], HF_ENDPOINT=address)
        assert again.path == first.path
        assert len(requests) == count
        (pinned,) = resolve_in_process(tmp_path, [f"owner/name@{COMMIT}"], HF_ENDPOINT=UNREACHABLE)
        assert pinned.path == first.path


def test_what_the_hub_refuses_is_one_line_each(tmp_path: Path) -> None:
    no_weights = {"config.json": b"{}", "pytorch_model.bin": b"x", "vocab.json": b"{}"}
    no_tokenizer_or_weights = {"config.json": b"{}"}
    no_tokenizer = {**no_tokenizer_or_weights, "model.safetensors": json_file({})}
    expected = {
        "owner/missing": "'owner/missing' is neither a directory nor a public repository",
        "hf://owner/missing": "'owner/missing' is not a public repository on the Hub; check",
        "owner/gated": "owner/gated on the Hub is gated: accept its terms",
        "owner/name@none": "owner/name on the Hub has no revision 'none'",
        "owner/pickle": "owner/pickle on the Hub: there is no model.safetensors, but pytorch_model",
        "owner/lora": "owner/lora on the Hub has no config.json: adapter_config.json is a LoRA",
        "owner/bert": "owner/bert on the Hub has no tokenizer (vocab.json and merges.txt, ",
        "owner/lacking": "owner/lacking on the Hub lacks 1 of 1 shards of its index, the first",
        "owner/mute": "owner/mute on the Hub has no tokenizer (vocab.json",
        "owner/empty": "owner/empty on the Hub has no config.json",
    }
    repositories: dict[str, Any] = {
        "owner/name": MODEL,
        "owner/gated": 403,
        "owner/pickle": no_weights,
        "owner/mute": no_tokenizer,
        "owner/empty": {"README.md": b"x"},
        "owner/lora": {"adapter_config.json": b"{}"},
        "owner/bert": {**no_tokenizer, "vocab.txt": b"[PAD]"},
        "owner/lacking": {
            **no_tokenizer_or_weights,
            "tokenizer.json": b"{}",
            "model.safetensors.index.json": b'{"weight_map": {"a": "w.safetensors"}}',
        },
    }
    with serve(repositories) as (address, requests):
        outcomes = resolve_in_process(tmp_path, list(expected), HF_ENDPOINT=address)
    assert not any(path.endswith(".safetensors") for path in requests)  # noticed before
    for start, outcome in zip(expected.values(), outcomes, strict=True):
        assert outcome.error == "PresetError"
        assert outcome.message.startswith(start)
        assert "\n" not in outcome.message


@pytest.mark.parametrize("shard", ["model-00001-of-00001.safetensors", "odd [name].safetensors"])
def test_sharded_repository(shard: str, tmp_path: Path) -> None:
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": shard}}).encode(),
        shard: json_file({}),
    }
    others = {"other.safetensors": b"x", "model-00001-of-00009.safetensors": b"x"}
    with serve({"owner/large": files | others}) as (address, _):
        names = ["owner/large", "owner/large"]
        outcome, again = resolve_in_process(tmp_path, names, HF_ENDPOINT=address)
        assert (again.path, again.reported) == (outcome.path, [])
    assert {path.name for path in Path(outcome.path).iterdir()} == set(files)
    (Path(outcome.path) / shard).unlink()
    (cut,) = resolve_in_process(tmp_path, ["owner/large"], HF_HUB_OFFLINE="1")
    assert cut.message.startswith(f"owner/large is in the local cache without {shard}, and the Hub")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, "the Hub answers 429 (too many requests); try again in 77 seconds, or log in"),
        (500, "the Hub answers 500 (it has a problem); try again in a few minutes"),
        (503, "the Hub answers 503 (it has a problem)"),
        (418, "the Hub answers 418; check the name and your access"),
    ],
)
def test_a_hub_that_answers_otherwise_is_reachable(status: int, said: str, tmp_path: Path) -> None:
    with serve({"owner/name": status}) as (address, _):
        (outcome,) = resolve_in_process(tmp_path, ["owner/name"], HF_ENDPOINT=address)
    assert outcome.error == "PresetError"
    assert outcome.message.startswith(f"owner/name could not be fetched: {said}")
    assert outcome.hidden
    assert outcome.seconds < 10


@pytest.mark.parametrize(("address", "means"), HUB_PAGES)
def test_a_page_of_the_hub_names_its_repository(
    address: str, means: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cases are those of tests/browser/library/test_sources.py."""
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    if means == "rejected":
        with pytest.raises(PresetError, match="is not the page of a model on the Hub"):
            hub_page(address)
    else:
        assert hub_page(address) == means


@pytest.mark.parametrize("text", ["owner/name", "https://[", "/a", "", "mirror.example/a/b"])
@pytest.mark.parametrize("mirror", ["", "https://["])
def test_what_is_no_page_of_the_hub(
    text: str, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", mirror)
    assert hub_page(text) is None


def test_a_pasted_address_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "gpt2_wgpu.weights.presets.resolve_directory",
        lambda name, *_: asked.append(name) or tmp_path,
    )
    assert resolve_preset("https://huggingface.co/owner/name/tree/v2?x=1") == tmp_path
    assert asked == ["hf://owner/name@v2"]


@pytest.mark.parametrize("wanted", [None, "0", "1"])
def test_bars_are_drawn_on_terminals_only(wanted: str | None, tmp_path: Path) -> None:
    """Standard error is a pipe here; a set variable of huggingface_hub takes precedence."""
    environment = {} if wanted is None else {"HF_HUB_DISABLE_PROGRESS_BARS": wanted}
    with serve({"owner/name": MODEL}) as (address, _):
        process = resolving_process(tmp_path, ["owner/name"], HF_ENDPOINT=address, **environment)
    assert json.loads(process.stdout)[0]["path"]
    if wanted != "0":
        assert process.stderr == ""


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
    assert cached.reported == []
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

    def model_info(repository: str, **_: Any) -> SimpleNamespace:
        siblings = [SimpleNamespace(rfilename=name) for name in MODEL]
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    return calls


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("odd\nmore"), ValueError()]
)
def test_any_other_failure_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fail_online(monkeypatch, error)
    with pytest.raises(PresetError, match=f"fetched from the Hub: {type(error).__name__}: "):
        resolve_directory("hf://owner/name@refs/pr/1")
    assert [call.get("local_files_only", False) for call in calls] == [True, False]
    assert [call["revision"] for call in calls] == ["refs/pr/1", COMMIT]
    for call in calls:
        assert call["repository"] == "owner/name"
        assert {*MODEL} - {*call["allow_patterns"]} <= {"config.json"}  # which comes last


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
