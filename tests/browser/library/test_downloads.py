"""Faulty downloads: interrupted, changed, rejected, too large for the storage, or mislabelled."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.browser.library.conftest import HALF, WEIGHTS, Attempt, obtain, sha256
from tests.browser.library.host import Host, Hosted


def complete(attempt: Attempt) -> list[bool]:
    return [model["complete"] for model in attempt("list")["value"]]


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 4_194_304, 4_194_400])
def test_sha256(attempt: Attempt, size: int) -> None:
    found = attempt.tab.evaluate(
        "(size) => worker.call('sha256', [[new Uint8Array(size).fill(97)]])", size
    )
    assert found == sha256(b"a" * size)


def test_a_directory(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    size = attempt("size", source)["value"]
    assert size["bytes"] == sum(map(len, files.values()))
    assert not size["cached"]
    assert not any(asked.method == "GET" for asked in host.asked)  # nothing was downloaded for it
    result = attempt("obtain", source, {})
    assert result["value"]["hashes"] == hashes
    assert not result["value"]["cached"]
    last = [event for event in result["progress"] if event["phase"] == "download"][-1]
    assert last["bytes"] == last["total"] == size["bytes"]
    (model,) = attempt("list")["value"]
    assert (model["id"], model["bytes"], model["complete"]) == (source, size["bytes"], True)
    host.asked.clear()
    assert obtain(attempt, source)["cached"]
    assert attempt("size", source)["value"]["cached"]
    assert host.asked == []  # no request delays the start from storage
    attempt("remove", source)
    assert attempt("list")["value"] == []
    assert attempt("files")["value"] == {}


def test_a_repository_of_the_hub(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    more = {"README.md": b"#", "pytorch_model.bin": b"x" * 999, "onnx/model.onnx": b"y" * 999}
    host.add_hub("owner/name", files | more)
    hub = {"hub": host.address}
    assert attempt("size", "owner/name", hub)["value"]["bytes"] == sum(map(len, files.values()))
    assert obtain(attempt, "hf://owner/name", **hub)["hashes"] == hashes
    assert obtain(attempt, "owner/name", **hub)["cached"]
    (model,) = attempt("list")["value"]
    assert model["id"] == "hf://owner/name"
    absent = attempt("obtain", "owner/absent", hub)["error"]
    assert absent["name"] == "PresetError"
    assert "'owner/absent' is not a public repository" in absent["message"]


def test_shards(attempt: Attempt, host: Host, files: dict[str, bytes]) -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}})
    del files[WEIGHTS]
    files |= {"model.safetensors.index.json": index.encode(), shards[0]: b"1", shards[1]: b"2"}
    found = obtain(attempt, host.add("sharded-model", files))["hashes"]
    assert found == {name: sha256(data) for name, data in files.items()}
    evil = {**files, "model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'}
    error = attempt("obtain", host.add("evil-model", evil), {})["error"]
    assert error["name"] == "WeightsError"
    assert "../x.safetensors" in error["message"]


def test_a_cut_connection_goes_on_where_it_was(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    hosted = host.files["/url-model/model.safetensors"]
    hosted.cuts = [HALF, 1000]
    assert obtain(attempt, source)["hashes"] == hashes
    first, second, third = host.downloads("/url-model/model.safetensors")
    assert (first.range, first.if_range, first.status) == ("bytes=0-", None, 206)
    assert (second.if_range, second.status) == (hosted.etag, 206)
    assert third.status == 206
    starts = [int(asked.range[6:-1]) for asked in (second, third) if asked.range]
    assert 0 < starts[0] <= HALF
    assert starts[0] < starts[1] <= HALF + 1000


def test_without_range_it_starts_again(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    hosted = host.files["/url-model/model.safetensors"]
    hosted.ranges, hosted.cuts = False, [HALF]
    assert obtain(attempt, source)["hashes"] == hashes


def test_without_a_validator_nothing_is_joined(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    hosted = host.files["/url-model/model.safetensors"]
    hosted.etag, hosted.cuts = None, [HALF]
    assert obtain(attempt, source)["hashes"] == hashes
    ranges = [asked.range for asked in host.downloads("/url-model/model.safetensors")]
    assert ranges == ["bytes=0-"] * 2


def test_a_dead_connection_is_given_up_and_taken_up_later(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    hosted = host.files["/url-model/model.safetensors"]
    hosted.cuts = [HALF, 0, 0, 0, 0, 0]
    error = attempt("obtain", source, {})["error"]
    assert error["name"] == "PresetError"
    assert "the connection broke at" in error["message"]
    assert complete(attempt) == [False]
    host.asked.clear()
    assert obtain(attempt, source)["hashes"] == hashes
    (asked,) = host.downloads("/url-model/model.safetensors")
    assert asked.status == 206
    assert asked.range is not None and int(asked.range[6:-1]) > 0
    assert complete(attempt) == [True]


def test_cancel_and_resume(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    hosted = host.files["/url-model/model.safetensors"]
    hosted.seconds_a_chunk = 0.1
    stopped = attempt("obtain", source, {}, stop_at=HALF)
    assert stopped["error"]["name"] == "AbortError"
    (model,) = attempt("list")["value"]
    assert not model["complete"]
    assert HALF <= model["bytes"] < model["total"]
    hosted.seconds_a_chunk = 0.0
    host.asked.clear()
    assert obtain(attempt, source)["hashes"] == hashes
    (asked,) = host.downloads("/url-model/model.safetensors")
    assert asked.range is not None and int(asked.range[6:-1]) >= HALF - 100
    assert asked.if_range == hosted.etag
    attempt.tab.reload()
    assert obtain(attempt, source)["cached"]


def test_a_file_that_changes_between_two_attempts_starts_again(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    source = host.add("url-model", files)
    hosted = host.files["/url-model/model.safetensors"]
    hosted.seconds_a_chunk = 0.1
    attempt("obtain", source, {}, stop_at=HALF)
    newer = b"newer" * 200_000
    host.files["/url-model/model.safetensors"] = Hosted(newer, '"newer"')
    assert obtain(attempt, source)["hashes"][WEIGHTS] == sha256(newer)


def test_a_file_that_changes_while_it_is_downloaded_starts_again(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    source = host.add("url-model", files)
    path = "/url-model/model.safetensors"
    newer = Hosted(b"newer" * 300_000, '"newer"')
    older = host.files[path]
    older.cuts = [HALF]
    older_pop = older.cuts.pop

    class Cuts(list[int]):
        def pop(self, index: Any = -1) -> int:
            host.files[path] = newer  # by the time the connection is taken up again
            return older_pop(index)

    older.cuts = Cuts([HALF])
    assert obtain(attempt, source)["hashes"][WEIGHTS] == sha256(newer.data)


def test_the_old_copy_is_kept_until_the_new_one_is_whole(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    obtain(attempt, source)
    newer = b"newer" * 200_000
    path = "/url-model/model.safetensors"
    host.files[path] = Hosted(newer, '"newer"', cuts=[HALF, 0, 0, 0, 0, 0])
    assert "connection broke" in attempt("obtain", source, {"update": True})["error"]["message"]
    assert obtain(attempt, source)["hashes"] == hashes  # the old one, whole
    assert obtain(attempt, source, update=True)["hashes"][WEIGHTS] == sha256(newer)
    assert len(attempt("files")["value"]) == len(files) + 1  # the old weights are gone
    host.asked.clear()
    assert obtain(attempt, source, update=True)["cached"]  # looked at, and nothing new
    assert host.downloads(path) == []


def test_a_wrong_hash_is_refused_and_deleted(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    host.add_hub("owner/name", files)
    damaged = bytearray(files[WEIGHTS])
    damaged[HALF] ^= 1
    host.files["/owner/name/resolve/c0ffee/model.safetensors"].data = bytes(damaged)
    error = attempt("obtain", "owner/name", {"hub": host.address})["error"]
    assert error["name"] == "WeightsError"
    assert f"instead of {sha256(files[WEIGHTS])}" in error["message"]
    assert attempt("list")["value"] == []


def test_what_proves_to_be_no_model_is_not_kept(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    assert "error" not in attempt("obtain", source, {}, False)
    assert attempt("list")["value"] == []


def test_a_web_page_in_place_of_a_file(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    source = host.add("url-model", files)
    page = Hosted(b"<!doctype html>", '"p"', "text/html; charset=utf-8")
    host.files["/url-model/tokenizer.json"] = page  # hosts of one page answer so for any address
    assert WEIGHTS in obtain(attempt, source)["hashes"]
    host.add_hub("owner/name", files)
    host.files["/owner/name/resolve/c0ffee/model.safetensors"].kind = "text/html"
    error = attempt("obtain", "owner/name", {"hub": host.address})["error"]
    assert error["name"] == "WeightsError"
    assert "this is a web page, not model.safetensors" in error["message"]


@pytest.mark.parametrize("page", ["", "/", "/tree/main", "/blob/main/config.json"])
def test_the_address_of_a_page_of_the_hub(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str], page: str
) -> None:
    host.add_hub("owner/name", files)
    value = obtain(attempt, f"{host.address}/owner/name{page}", hub=host.address)
    assert (value["name"], value["hashes"]) == ("owner/name", hashes)


def test_a_full_storage_keeps_the_model_for_this_run(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    attempt.tab.command("Storage.overrideQuotaForOrigin", origin=host.address, quotaSize=1_000_000)
    value = obtain(attempt, host.add("url-model", files))
    assert value["hashes"] == hashes
    # Chromium's estimate does not include this quota, which only a write detects.
    taken = re.search(r"needs 1\.5 MB of browser storage, full after (\S+) MB\.", value["warning"])
    assert taken and 0 < float(taken[1]) <= 1
    assert complete(attempt) == []


PORTABLE = """async (source) => {
  const { portable } = await import(new URL("../web/portable.js", document.baseURI).href);
  return portable(source);
}"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent/", "has no config.json, so it holds no model"),
        ("http://127.0.0.1:9/model/", "Can't reach 127.0.0.1:9. Are you offline?"),
        ("nonsense", "unknown model 'nonsense'"),
        (
            "ftp://example.org/m/",
            "ftp://example.org/m/ is not an address that starts with https://",
        ),
        ("C:\\gpt2", "to read files of this device, pass the File objects"),
        ("\\\\server\\gpt2", "to read files of this device, pass the File objects"),
        ("models\\gpt2", "to read files of this device, pass the File objects"),
        ("~/models/gpt2", "to read files of this device, pass the File objects"),
        ("https://", "'https://' is not a valid address"),
        ("https://example.org/%zz/", "'https://example.org/%zz/' is not a valid address"),
        ("", "a model is named by text"),
    ],
)
def test_a_source_without_a_model(attempt: Attempt, host: Host, source: str, message: str) -> None:
    source = f"{host.address}/{source}" if source == "absent/" else source
    source = attempt.tab.evaluate(PORTABLE, source)
    error = attempt("obtain", source, {})["error"]
    assert error["name"] == "PresetError"
    assert message in error["message"]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "vocab.json"])
def test_a_directory_that_lacks_a_file(
    attempt: Attempt, host: Host, files: dict[str, bytes], missing: str
) -> None:
    del files[missing]
    error = attempt("obtain", host.add("url-model", files), {})["error"]
    assert error["name"] == "PresetError"
    assert missing in error["message"]


def test_refused_access(attempt: Attempt, host: Host, files: dict[str, bytes]) -> None:
    source = host.add("url-model", files)
    host.files["/url-model/config.json"].status = 403
    error = attempt("obtain", source, {})["error"]
    assert "access denied (status 403)" in error["message"]


def test_two_tabs_do_not_download_the_same_model(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    source = host.add("url-model", files)
    assert "error" not in attempt("hold", source)
    other = Attempt(attempt.tab.beside(f"{host.page}tests/downloads.html"))
    assert other("obtain", source, {})["error"]["name"] == "BusyError"


@pytest.mark.parametrize("quota", [None, 1_000_000], ids=["stored", "no room"])
def test_calls_at_the_same_time_share_a_download(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str], quota: int | None
) -> None:
    source = host.add("url-model", files)
    host.files["/url-model/model.safetensors"].seconds_a_chunk = 0.02
    if quota:
        attempt.tab.command("Storage.overrideQuotaForOrigin", origin=host.address, quotaSize=quota)
    calls = "(s) => Promise.all([1, 2, 3].map(() => attempt('obtain', [s, {}])))"
    found = attempt.tab.evaluate(calls, source)
    assert [each["value"]["hashes"] for each in found] == [hashes] * 3
    assert [each["value"]["stored"] for each in found] == [quota is None] * 3
    # (Without room the download begins twice: the first did not fit.)
    assert len(host.downloads("/url-model/model.safetensors")) == (2 if quota else 1)


def test_a_cancelled_download_goes_on_for_others(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    host.files["/url-model/model.safetensors"].seconds_a_chunk = 0.02
    first, waiting, second = attempt.tab.evaluate(
        """async (source) => {
          const first = attempt("obtain", [source, {}], 500_000);
          const signal = AbortSignal.timeout(50);
          const waiting = worker.call("obtain", [source, {}], { signal }).catch(({ name }) => name);
          return Promise.all([first, waiting, attempt("obtain", [source, {}])]);
        }""",
        source,
    )
    assert (first["error"]["name"], waiting) == ("AbortError", "TimeoutError")
    assert second["value"]["hashes"] == hashes
    _, resumed = host.downloads("/url-model/model.safetensors")
    assert resumed.range is not None
