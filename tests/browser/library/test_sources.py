"""Sources without a valid checkpoint: errors before a download."""

from __future__ import annotations

import json

import pytest

from gpt2_wgpu.small_files import MAX_BYTES
from tests.browser.library.conftest import ROOT, WEIGHTS, Attempt, obtain, sha256
from tests.browser.library.host import PREFIX, Host, Hosted

INDEX = "model.safetensors.index.json"
NUMBERED = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def refusal(attempt: Attempt, source: object, **options: object) -> str:
    message: str = attempt("obtain", source, options)["error"]["message"]
    return message


@pytest.mark.parametrize(
    ("lacking", "there", "message"),
    [
        (
            WEIGHTS,
            "gpt2.gguf",
            "but gpt2.gguf is a GGUF file of llama.cpp: use the original checkpoint",
        ),
        (WEIGHTS, "onnx/model.onnx", "but onnx is an ONNX export"),
        (WEIGHTS, "pytorch_model.bin", "but pytorch_model.bin is a PyTorch pickle"),
        (WEIGHTS, "README.md", "has no model.safetensors; convert its weights"),
        ("config.json", "adapter_config.json", "adapter_config.json is a LoRA adapter"),
        ("vocab.json", "vocab.txt", "vocab.txt is of BertTokenizer (WordPiece)"),
        (WEIGHTS, NUMBERED[0], "1 of 2 shards are missing: model-00002-of-00002.safetensors, and"),
    ],
)
def test_what_lies_in_a_repository_is_named(
    attempt: Attempt, host: Host, files: dict[str, bytes], lacking: str, there: str, message: str
) -> None:
    del files[lacking]
    host.add_hub("owner/name", {**files, there: b"x"})
    assert message in refusal(attempt, "owner/name", hub=host.address)
    assert not [asked for asked in host.asked if "/resolve/" in asked.path]


@pytest.mark.parametrize("indexed", [["odd [1] #x.safetensors"], None], ids=["index", "none"])
def test_shards_of_any_name_and_without_their_index(
    attempt: Attempt, host: Host, files: dict[str, bytes], indexed: list[str] | None
) -> None:
    del files[WEIGHTS]
    shards = indexed or NUMBERED
    files |= dict.fromkeys(shards, b"1")
    if indexed:
        weight_map = {str(i): name for i, name in enumerate(shards)}
        files[INDEX] = json.dumps({"weight_map": weight_map}).encode()
    host.add_hub("owner/name", {**files, "other.safetensors": b"x"})
    found = attempt("size", "owner/name", {"hub": host.address})["value"]
    assert {file["name"] for file in found["files"]} == set(files)


@pytest.mark.parametrize("name", ["\\ud800.safetensors", "a/b.safetensors", "x" * 10**6])
def test_odd_shards_are_refused_in_a_short_message(
    attempt: Attempt, host: Host, files: dict[str, bytes], name: str
) -> None:
    del files[WEIGHTS]
    files[INDEX] = b'{"weight_map": {"a": "%s"}}' % name.encode()
    message = refusal(attempt, host.add("url-model", files))
    assert "the index must map tensors to .safetensors files beside it" in message
    assert len(message) < 400


@pytest.mark.parametrize("name", ["config.json", "vocab.json", INDEX])
def test_a_small_file_that_is_large_is_not_downloaded(
    attempt: Attempt, host: Host, files: dict[str, bytes], name: str
) -> None:
    if name == INDEX:
        del files[WEIGHTS]
    files[name] = b"{}"
    host.add_hub("owner/name", files)
    (path,) = [path for path in host.files if path.startswith("/api/models/owner/name")]
    listing = json.loads(host.files[path].data)
    for file in listing["siblings"]:
        if file["rfilename"] == name:
            file["size"] = MAX_BYTES + 1
    host.files[path].data = json.dumps(listing).encode()
    message = refusal(attempt, "owner/name", hub=host.address)
    assert f"{MAX_BYTES + 1} bytes is above the limit of {MAX_BYTES}" in message


def test_an_answer_that_has_no_end_is_not_read_to_it(attempt: Attempt, host: Host) -> None:
    """For any announced size."""
    read = attempt.tab.evaluate(
        """async () => {
          const url = new URL("../web/downloads.js", document.baseURI);
          const { smallText, SMALL_FILE } = await import(url.href);
          let given = 0;
          const pull = (c) => { given += 1 << 20; c.enqueue(new Uint8Array(1 << 20)); };
          try {
            await smallText(new Response(new ReadableStream({ pull })), "there");
          } catch (error) {
            return [error.message, given <= SMALL_FILE + (4 << 20)];
          }
        }"""
    )
    assert "there: " in read[0] and "above the limit" in read[0]
    assert read[1]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "responded with status 429 (too many requests); try again in a few minutes"),
        (503, "the server responded with status 503 (server error)"),
    ],
)
def test_a_server_that_refuses_for_now(
    attempt: Attempt, host: Host, files: dict[str, bytes], status: int, message: str
) -> None:
    source = host.add("url-model", files)
    host.files["/url-model/config.json"].status = status
    assert message in refusal(attempt, source)


def test_a_server_that_is_busy_all_the_time_is_not_called_a_broken_connection(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    host.add_hub("owner/name", files)
    (path,) = [path for path in host.files if path.endswith(WEIGHTS)]
    host.files[path].busy = 99
    message = refusal(attempt, "owner/name", hub=host.address)
    assert "the server responded with status 429 (too many requests)" in message
    host.files[path].busy = 0
    assert obtain(attempt, "owner/name", hub=host.address)["hashes"]


def test_pages_of_the_hub_are_those_of_python(attempt: Attempt) -> None:
    cases = json.loads((ROOT / "tests" / "hub_pages.json").read_text(encoding="utf-8"))
    read = attempt.tab.evaluate(
        """async (cases) => {
          const url = new URL("../web/sources.js", document.baseURI);
          const { parse } = await import(url.href);
          const { portable } = await import(new URL("portable.js", url).href);
          const hub = "https://mirror.example/hub/";
          const means = async (address) => {
            try {
              const { kind, id } = await parse(portable(address, hub), { hub });
              if (kind !== "hub") return null;
              return (await parse(id)).id.slice("hf://".length);  // what is stored is a source, too
            } catch (error) {
              const rejected = error.message.includes("is not the page of a model on the Hub");
              return rejected ? "rejected" : error.message;
            }
          };
          return Promise.all(cases.map(async ([address]) => [address, await means(address)]));
        }""",
        cases,
    )
    assert read == cases


@pytest.mark.parametrize(
    "answer",
    [
        b"<!doctype html>",
        b"null",
        b"{}",
        b'{"sha": "a", "siblings": [{"rfilename": "config.json"}]}',
    ],
)
def test_what_does_not_answer_as_the_hub(attempt: Attempt, host: Host, answer: bytes) -> None:
    host.files["/api/models/owner/name/revision/main"] = Hosted(answer)
    result = attempt("obtain", "owner/name", {"hub": host.address})["error"]
    assert result["name"] == "PresetError"
    assert "?blobs=true does not answer as the Hub does" in result["message"]


def test_the_models_of_a_site(attempt: Attempt, host: Host, files: dict[str, bytes]) -> None:
    """Folders of its list that hold a whole model, with the bytes of `size`, not of all files."""
    folders = {"fairytales": {**files, "README.md": b"# Tales"}, "my model": files}
    folders["no weights"] = {name: data for name, data in files.items() if name != WEIGHTS}
    folders["notes"] = {"README.md": b"#"}
    manifest = {
        f"models/{folder}/{name}": {"bytes": len(data), "sha256": sha256(data)}
        for folder, held in folders.items()
        for name, data in held.items()
    }
    manifest |= {"index.html": {"bytes": 1}, "models/README.md": {"bytes": 1}}
    host.files[f"{PREFIX}manifest.json"] = Hosted(json.dumps(manifest).encode())
    for folder, held in folders.items():
        host.add(f"{PREFIX.strip('/')}/models/{folder.replace(' ', '%20')}", held)
    found = attempt("offered")["value"]
    address = f"{host.page}models/my%20model/"
    assert [(each["source"], each["name"]) for each in found] == [
        ("fairytales", "fairytales"),
        (address, "my model"),
    ]
    for each in found:
        bytes_of_model = sum(map(len, files.values()))
        assert each["bytes"] == attempt("size", each["source"])["value"]["bytes"] == bytes_of_model


@pytest.mark.parametrize("answer", [b"<!doctype html>", b"[1]"])
def test_what_is_not_the_list_of_the_sites_files(
    attempt: Attempt, host: Host, answer: bytes
) -> None:
    host.files[f"{PREFIX}manifest.json"] = Hosted(answer)
    message = refusal(attempt, "fairytales")
    assert "manifest.json is not the list of this site's files" in message
