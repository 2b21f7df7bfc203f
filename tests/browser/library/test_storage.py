"""Models in the browser's storage: concurrent tabs, a full disk, a damaged record."""

from __future__ import annotations

import pytest

from tests.browser.library.conftest import Attempt, obtain
from tests.browser.library.host import Host


def test_two_tabs_do_not_erase_each_others_model(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    source = host.add("url-model", files)
    other = Attempt(attempt.tab.beside(f"{host.page}tests/downloads.html"))
    assert "error" not in attempt("hold", source)  # all is here, but not proved to be a model
    for rejected in (other("obtain", source, {}), other("remove", source)):
        assert rejected["error"]["name"] == "BusyError"
    assert "error" not in attempt("finish")
    assert len(attempt("files")["value"]) == len(files) + 1
    found = obtain(other, source)
    assert (found["cached"], found["hashes"]) == (True, hashes)
    assert "error" not in other("remove", source)


def test_a_model_is_committed_once(attempt: Attempt, host: Host, files: dict[str, bytes]) -> None:
    source = host.add("url-model", files)
    assert "error" not in attempt("hold", source)
    for _ in range(2):  # where there are no locks, another tab may have done so before
        assert "error" not in attempt("finish")
    assert obtain(attempt, source)["cached"]


def test_a_storage_that_takes_little_at_a_time(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    attempt("takeAtMost", 1000)
    source = host.add("url-model", files)
    assert obtain(attempt, source)["hashes"] == hashes
    assert obtain(attempt, source)["stored"]


@pytest.mark.parametrize("answer", [0, -7])
def test_a_storage_that_takes_nothing(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str], answer: int
) -> None:
    attempt("takeAtMost", answer)
    found = obtain(attempt, host.add("url-model", files))
    assert found["hashes"] == hashes
    assert not found["stored"]
    assert "The model works until this page is closed." in found["warning"]


def test_a_storage_that_tells_of_too_little_room(
    attempt: Attempt, host: Host, files: dict[str, bytes], hashes: dict[str, str]
) -> None:
    attempt("tellOfRoom", 1_000_000)
    found = obtain(attempt, host.add("url-model", files))
    assert found["hashes"] == hashes
    assert "needs 1.5 MB of browser storage, 1.0 MB available" in found["warning"]
    assert attempt("files")["value"] == {}  # nothing was begun


def test_a_damaged_record_can_be_deleted(
    attempt: Attempt, host: Host, files: dict[str, bytes]
) -> None:
    obtain(attempt, host.add("url-model", files))
    attempt("damage")
    (model,) = attempt("list")["value"]
    assert (model["name"], model["complete"]) == ("damaged model", False)
    assert model["bytes"] == sum(map(len, files.values()))
    attempt("remove", model["id"])
    assert attempt("files")["value"] == {}
