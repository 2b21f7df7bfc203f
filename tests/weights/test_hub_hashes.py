"""Files of the right size and wrong content: rejected, deleted, and fetched again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.weights.hub_hashes import check
from tests.weights.fake_hub import COMMIT, serve
from tests.weights.test_sources import MODEL, fill_cache, resolve_in_process

OLD = "f" * 40
SHARD = "model-00001-of-00001.safetensors"
WHOLE = {**MODEL, "config.json": b'{"a": 1}'}  # no two files are the same blob
SHARDED = {
    **{name: data for name, data in WHOLE.items() if name != "model.safetensors"},
    "model.safetensors.index.json": b'{"weight_map": {"a": "%s"}}' % SHARD.encode(),
    SHARD: WHOLE["model.safetensors"],
}


def altered(data: bytes) -> bytes:
    """Other bytes, as many."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.slow
def test_wrong_bytes_are_refused_and_deleted(tmp_path: Path) -> None:
    cases = {
        "owner/a": (WHOLE, "model.safetensors"),
        f"owner/b@{COMMIT}": (WHOLE, "model.safetensors"),
        "owner/c": (WHOLE, "config.json"),
        f"owner/d@{COMMIT}": (WHOLE, "config.json"),
        "owner/e": (WHOLE, "merges.txt"),
        "owner/f": (SHARDED, SHARD),
    }
    repositories = {asked[:7]: files for asked, (files, _) in cases.items()}
    wrong = {f"{asked[:7]}/{name}": altered(files[name]) for asked, (files, name) in cases.items()}
    with serve(repositories, wrong) as (address, _):
        rejected = resolve_in_process(tmp_path, [*cases], HF_ENDPOINT=address)
    for (asked, (_, name)), outcome in zip(cases.items(), rejected, strict=True):
        assert outcome.error == "PresetError"
        assert outcome.message.startswith(f"{name} of {asked} arrived with another hash than the")
    left = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not {*left} & {*wrong.values()}
    for outcome in resolve_in_process(tmp_path, [*cases], HF_HUB_OFFLINE="1"):
        assert outcome.error == "PresetError"  # what is left is not taken for a model
    with serve(repositories) as (address, requests):
        whole = resolve_in_process(tmp_path, [*cases], HF_ENDPOINT=address)
    for (files, name), outcome in zip(cases.values(), whole, strict=True):
        assert (Path(outcome.path) / name).read_bytes() == files[name]
    again = [line for line in requests if line.startswith("GET /cdn/")]
    assert len(again) == 3  # the weights that were right are there


@pytest.mark.slow
def test_the_old_model_stays_in_use_until_the_new_one_is_checked(tmp_path: Path) -> None:
    filled = fill_cache(tmp_path, "owner/name", MODEL)
    old = filled.rename(filled.with_name(OLD))
    main = old.parents[1] / "refs" / "main"
    main.write_text(OLD)
    (old / "merges.txt").rename(tmp_path / "merges.txt")  # so that the Hub is asked at all
    wrong = {"owner/name/model.safetensors": altered(MODEL["model.safetensors"])}
    with serve({"owner/name": MODEL}, wrong) as (address, _):
        (rejected,) = resolve_in_process(tmp_path, ["owner/name"], HF_ENDPOINT=address)
    assert rejected.error == "PresetError"
    assert main.read_text() == OLD
    (tmp_path / "merges.txt").rename(old / "merges.txt")
    (kept,) = resolve_in_process(tmp_path, ["owner/name"], HF_HUB_OFFLINE="1")
    assert kept.path == str(old)
    (old / "merges.txt").unlink()
    with serve({"owner/name": MODEL}) as (address, _):
        (new,) = resolve_in_process(tmp_path, ["owner/name"], HF_ENDPOINT=address)
    assert (new.path, main.read_text()) == (str(filled), COMMIT)


@pytest.mark.parametrize("fetched", [False, True])
@pytest.mark.parametrize("listed", ["../victim.txt", "../../../victim.txt", "{home}/victim.txt"])
def test_a_list_of_files_deletes_nothing_outside_the_snapshot(
    listed: str, fetched: bool, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    name = listed.format(home=tmp_path)
    victim = snapshot / name
    victim.write_text("mine")
    sibling = SimpleNamespace(rfilename=name, lfs={"sha256": "0" * 64}, blob_id=None)
    if fetched:
        with pytest.raises(PresetError, match=r"lists the file .*victim.txt', which is outside"):
            check(snapshot, [sibling], [name], "owner/name")
    else:
        check(snapshot, [sibling], ["model.safetensors"], "owner/name")
    assert victim.read_text() == "mine"


def test_a_file_that_was_not_fetched_is_not_deleted(tmp_path: Path) -> None:
    """It may be there from another program's download."""
    snapshot = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("edited")
    sibling = SimpleNamespace(rfilename="README.md", lfs=None, blob_id="0" * 40)
    check(snapshot, [sibling], ["model.safetensors"], "owner/name")
    assert (snapshot / "README.md").read_text() == "edited"
