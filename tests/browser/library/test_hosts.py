"""Downloads from hosts without metadata, with intermittent errors, or without range requests."""

from __future__ import annotations

from tests.browser.library.conftest import HALF, WEIGHTS, Attempt, obtain
from tests.browser.library.host import Host

PATH = "/url-model/model.safetensors"
DATES = ("Sun, 01 Feb 2026 10:00:00 GMT", "Mon, 02 Feb 2026 10:00:00 GMT")


def test_another_origin_that_answers_no_preflight(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    """If-Range would need one; neither ETag nor Content-Range can be read."""
    host.add("url-model", files)
    hosted = host.files[PATH]
    hosted.date, hosted.cuts = DATES[0], [HALF]
    source = f"{host.elsewhere}/url-model/"
    assert attempt("size", source)["value"]["bytes"] == sum(map(len, files.values()))
    assert all(asked.method == "HEAD" for asked in host.asked)
    assert obtain(attempt, source)["hashes"] == hashes
    _, second = host.downloads(PATH)
    assert (second.if_range, second.status) == (None, 206)
    assert second.range is not None and int(second.range[6:-1]) > 0


def test_another_origin_whose_file_changes(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    host.add("url-model", files)
    hosted = host.files[PATH]
    hosted.date, hosted.seconds_a_chunk = DATES[0], 0.02
    hosted.cuts = [HALF, 0, 0, 0, 0, 0]
    source = f"{host.elsewhere}/url-model/"
    assert "connection broke" in attempt("obtain", source, {})["error"]["message"]
    hosted.cuts = []
    hosted.date, hosted.data = DATES[1], hosted.data[::-1]
    found = obtain(attempt, source)["hashes"]
    assert found[WEIGHTS] != hashes[WEIGHTS]
    assert {**found, WEIGHTS: ""} == {**hashes, WEIGHTS: ""}


def test_a_known_hash_is_proof_enough_to_go_on(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    """As for the models of the site, whose manifest may have no ETag."""
    host.add("url-model", files)
    host.files[PATH].etag = None
    host.files[PATH].cuts = [HALF]
    url = f"{host.address}{PATH}"
    plan = {"name": WEIGHTS, "url": url, "bytes": len(files[WEIGHTS]), "sha256": hashes[WEIGHTS]}
    assert attempt("download", plan)["value"] == hashes[WEIGHTS]
    _, second = host.downloads(PATH)
    assert second.status == 206 and second.if_range is None
    assert second.range is not None and int(second.range[6:-1]) > 0


def test_what_starts_again_and_again_ends(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    source = host.add("url-model", files)
    hosted = host.files[PATH]
    hosted.ranges, hosted.cuts = False, [HALF, 1] * 10
    assert "connection broke" in attempt("obtain", source, {})["error"]["message"]
    assert len(host.downloads(PATH)) < 10


def test_too_many_requests_are_made_later(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    host.files[PATH].busy = 2
    assert obtain(attempt, source)["hashes"] == hashes
    assert [asked.status for asked in host.downloads(PATH)] == [429, 429, 206]
