"""Download of a model's files in a browser, from a URL or the Hugging Face Hub.

For pages that run Python themselves. Files are downloaded completely each time; ``web/gpt2.js``
caches models, resumes interrupted downloads, and verifies hashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from gpt2_wgpu.checkpoint_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    EXTRAS,
    TOKENIZER_PARTS,
    WHOLE_TOKENIZER,
)
from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.models.addresses import endpoint
from gpt2_wgpu.other_formats import kind_of
from gpt2_wgpu.webgpu.bindings import load_wgpu
from gpt2_wgpu.weights.blobs import Blob, read_blob
from gpt2_wgpu.weights.checkpoint import INDEX_FILE, SINGLE_FILE, parse_index

_NOT_FOUND = 404
_NO_ENTRY = "it is private, needs a login, or does not exist"
_BUSY = "the server has a problem: try again later"
_WHY = {401: _NO_ENTRY, 403: _NO_ENTRY, 429: "too many requests: try again in a few minutes"}


async def fetch_files(address: str, weights: bool = True) -> dict[str, Blob]:
    """Download a model's files from the directory ``address``; with ``weights``, those, too.

    Returns:
        File name → ``Blob``.

    Raises:
        PresetError: a file is missing, or the host cannot be reached.
        WeightsError: the index of shards is malformed.
        DependencyError: wgpu is missing; raised before any download.
    """
    load_wgpu()
    config = await _fetch(address, CONFIG)
    if config is None and await _fetch(address, ADAPTER_CONFIG) is not None:
        raise PresetError(f"{address} has no {CONFIG}: {kind_of([ADAPTER_CONFIG])}")
    files = {CONFIG: config or await _required(address, CONFIG)}
    files |= await _tokenizer_files(address)  # before the large weights
    if not weights:
        return files
    single = await _fetch(address, SINGLE_FILE)
    if single is not None:
        files[SINGLE_FILE] = single
    else:
        files[INDEX_FILE] = await _required(address, INDEX_FILE, f"{SINGLE_FILE} or {INDEX_FILE}")
        where = address + INDEX_FILE
        index = parse_index(await read_blob(files[INDEX_FILE], where), where)
        for shard in sorted(set(index.values())):
            files[shard] = await _required(address, shard)
    return files


async def fetch_adapter(address: str) -> dict[str, Blob]:
    """Download a LoRA adapter's files from the directory ``address``; errors as `fetch_files`."""
    is_this = "is this the directory of a LoRA adapter?"
    names = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    return {name: await _required(address, name, is_this=is_this) for name in names}


async def _tokenizer_files(address: str) -> dict[str, Blob]:
    """Download the tokenizer's files, required and optional."""
    found = await _present(address, [WHOLE_TOKENIZER, *EXTRAS])
    if WHOLE_TOKENIZER not in found:
        for names in TOKENIZER_PARTS:
            part = await _present(address, names)
            if not part:
                raise PresetError(
                    f"{address} has no {WHOLE_TOKENIZER} or {names[0]}: is this the directory of a "
                    "model?"
                )
            found |= part
    return found


async def _present(address: str, names: Sequence[str]) -> dict[str, Blob]:
    """Download those of ``names`` that exist, concurrently."""
    blobs = await asyncio.gather(*(_fetch(address, name) for name in names))
    return {name: blob for name, blob in zip(names, blobs, strict=True) if blob is not None}


def name_of(address: str) -> str:
    """Return the name of the model in messages."""
    return PurePosixPath(address.partition("/resolve/")[0]).name


async def _required(
    address: str, name: str, wanted: str = "", is_this: str = "is this the directory of a model?"
) -> Blob:
    blob: Blob | None = await _fetch(address, name)
    if blob is None:
        raise PresetError(f"{address} has no {wanted or name}: {is_this}")
    return blob


async def _fetch(address: str, name: str) -> Any:
    import js
    from pyodide.ffi import JsException

    try:
        response = await js.fetch(address + name)
        if response.status == _NOT_FOUND:
            return None
        if response.ok:
            kind = str(response.headers.get("Content-Type") or "")
            # Some hosts return their front page for missing files.
            return None if kind.startswith("text/html") else await response.blob()
    except JsException:
        mirror = "; os.environ['HF_ENDPOINT'] may name a mirror"
        raise PresetError(
            f"{address} cannot be reached (offline?), or does not allow this page to read it"
            f"{mirror if address.startswith(endpoint()) else ''}"
        ) from None
    status = int(response.status)
    why = _WHY.get(status, _BUSY if status >= 500 else "")
    raise PresetError(
        f"{address}{name}: the server answers with status {status}{why and f' ({why})'}"
    )
