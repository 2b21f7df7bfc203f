"""The fake Hub fulfils the expectations of huggingface_hub's client."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import HfApi, errors, file_download, get_hf_file_metadata, hf_hub_url
from huggingface_hub.hf_api import RepoFile

from tests.weights.fake_hub import COMMIT, serve

FILES = {"config.json": b'{"a": 1}', "model.safetensors": bytes(range(100)), "sub/a b.txt": b"x\n"}
# `printf 'x\n' | git hash-object --stdin`
BLOB_ID = "587be6b4c3f93f93c489c0111bba5596147a26cb"


@pytest.fixture(scope="module")
def api() -> Iterator[HfApi]:
    repositories: dict[str, Any] = {"owner/name": FILES, "owner/gated": 403, "owner/busy": 429}
    with serve(repositories) as (address, _):
        yield HfApi(endpoint=address)


def test_the_list_of_files_has_hashes_where_asked_for(api: HfApi) -> None:
    plain = api.model_info("owner/name")
    assert (plain.id, plain.sha) == ("owner/name", COMMIT)
    assert [one.rfilename for one in plain.siblings or ()] == [*FILES]
    known = {(one.size, one.blob_id, one.lfs) for one in plain.siblings or ()}
    assert known == {(None, None, None)}
    named = api.model_info("owner/name", revision=COMMIT, files_metadata=True).siblings or ()
    listed = api.list_repo_tree("owner/name", recursive=True)
    tree = {one.path: one for one in listed if isinstance(one, RepoFile)}
    for one in named:
        data = FILES[one.rfilename]
        assert one.size == len(data)
        assert (one.blob_id, one.lfs) == (tree[one.rfilename].blob_id, tree[one.rfilename].lfs)
        if one.rfilename.endswith(".safetensors"):
            assert one.lfs is not None
            assert (one.lfs.sha256, one.lfs.size) == (hashlib.sha256(data).hexdigest(), 100)
    assert tree["sub/a b.txt"].blob_id == BLOB_ID
    assert api.list_repo_files("owner/name") == [*FILES]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_described_and_sent_whole_or_in_part(name: str, api: HfApi) -> None:
    url = hf_hub_url("owner/name", name, endpoint=api.endpoint)
    described = get_hf_file_metadata(url)
    stated = {
        one.rfilename: one
        for one in api.model_info("owner/name", files_metadata=True).siblings or ()
    }
    lfs = stated[name].lfs
    assert described.etag == (lfs.sha256 if lfs else stated[name].blob_id)
    assert (described.size, described.commit_hash) == (len(FILES[name]), COMMIT)
    on_other_host = not described.location.startswith(str(api.endpoint))
    assert on_other_host == (lfs is not None)
    for address in (url, described.location):
        whole = io.BytesIO()
        file_download.http_get(address, whole, expected_size=described.size)
        assert whole.getvalue() == FILES[name]
    part = io.BytesIO(FILES[name][:1])
    part.seek(1)
    file_download.http_get(described.location, part, resume_size=1, expected_size=described.size)
    assert part.getvalue() == FILES[name]


@pytest.mark.parametrize(
    ("repository", "revision", "expected", "status"),
    [
        ("owner/none", None, errors.RepositoryNotFoundError, 404),
        ("owner/gated", None, errors.GatedRepoError, 403),
        ("owner/name", "none", errors.RevisionNotFoundError, 404),
    ],
)
def test_refusals_are_told_apart(
    repository: str, revision: str | None, expected: type[Exception], status: int, api: HfApi
) -> None:
    with pytest.raises(expected) as caught:
        api.model_info(repository, revision=revision)
    assert caught.type is expected
    assert caught.value.response.status_code == status  # type: ignore[attr-defined]


def test_a_missing_file_and_a_busy_server(api: HfApi) -> None:
    with pytest.raises(errors.EntryNotFoundError):
        get_hf_file_metadata(hf_hub_url("owner/name", "absent", endpoint=api.endpoint))
    with pytest.raises(errors.HfHubHTTPError) as caught:
        api.model_info("owner/busy")
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "77"
