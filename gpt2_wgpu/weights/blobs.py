"""A checkpoint of blobs: files that a browser holds, and that are read only in pieces.

A blob is JavaScript's ``Blob`` or ``File`` (https://w3c.github.io/FileAPI/): picked, stored or just
downloaded, its bytes lie outside of Python's memory. Headers are read here; the tensors' bytes go
from the blob to the GPU without passing through Python.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from gpt2_wgpu import small_files
from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.checkpoint import (
    INDEX_FILE,
    SINGLE_FILE,
    BlobRange,
    file_of_tensors,
    parse_index,
    weight_files,
)
from gpt2_wgpu.weights.header import LENGTH_BYTES, Header, TensorEntry, header_length, parse_header

_START = 256  # enough to tell what a file really is


class Bytes(Protocol):
    """An ``ArrayBuffer``, as Python sees it."""

    def to_bytes(self) -> bytes: ...


class Blob(Protocol):
    """JavaScript's ``Blob``, as Python sees it."""

    @property
    def size(self) -> int: ...
    def slice(self, begin: int, end: int) -> Blob: ...
    def arrayBuffer(self) -> Awaitable[Bytes]: ...


class BlobCheckpoint:
    """The tensors of a checkpoint's blobs: a `WeightSource`. Make one with ``await open``."""

    def __init__(
        self,
        blobs: Mapping[str, Blob],
        headers: Mapping[str, Header],
        where: str,
        weight_map: Mapping[str, str],
    ) -> None:
        self.where = where
        self._blobs = blobs
        self._headers = headers
        tensors = {name: header.tensors for name, header in headers.items()}
        self._file_of, self.disagreements = file_of_tensors(tensors, where, weight_map)

    @classmethod
    async def open(cls, blobs: Mapping[str, Blob], where: str) -> BlobCheckpoint:
        """Read the headers of ``model.safetensors``, or else of the shards that the index names.

        Args:
            blobs: file name → blob; files that are not weights are ignored.
            where: what messages call the checkpoint.

        Raises:
            WeightsError: as `Checkpoint.open` does.
        """
        weight_map: dict[str, str] = {}
        if SINGLE_FILE not in blobs and INDEX_FILE in blobs:
            index = f"{where}/{INDEX_FILE}"
            weight_map = parse_index(await read_blob(blobs[INDEX_FILE], index), index)
        names = weight_files(blobs.keys(), weight_map, where)
        headers = {name: await _header(blobs[name], f"{where}/{name}") for name in names}
        return cls(blobs, headers, where, weight_map)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The files' ``__metadata__``; of shards that disagree, the last one's."""
        headers = self._headers.values()
        return {key: value for header in headers for key, value in header.metadata.items()}

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, in the order of the files' bytes."""
        return tuple(self._file_of)

    def entry(self, name: str) -> TensorEntry:
        """Dtype, shape and place (in its own file) of a tensor.

        Raises:
            WeightsError: there is no such tensor.
        """
        return self._headers[self._file(name)].tensors[name]

    def read(self, name: str) -> BlobRange:
        """Where a tensor's bytes lie.

        Raises:
            WeightsError: there is no such tensor.
        """
        entry = self.entry(name)
        return BlobRange(self._blobs[self._file(name)], entry.begin, entry.end)

    def _file(self, name: str) -> str:
        try:
            return self._file_of[name]
        except KeyError:
            raise WeightsError(f"{self.where}: there is no tensor {shown(name)}") from None


async def read_blob(blob: Blob, where: str) -> bytes:
    """All bytes of a configuration, an index or a tokenizer's file.

    Raises:
        WeightsError: it is too large to be one.
    """
    try:
        small_files.check_size(blob.size)
    except ValueError as error:
        raise WeightsError(f"{where}: {error}") from None
    return await _bytes(blob)


async def read_range(place: BlobRange) -> bytes:
    """The bytes of a part of a blob."""
    return await _bytes(place.blob.slice(place.begin, place.end))


async def _bytes(blob: Blob) -> bytes:
    return (await blob.arrayBuffer()).to_bytes()


async def _header(blob: Blob, where: str) -> Header:
    start = await _bytes(blob.slice(0, min(_START, blob.size)))
    length = header_length(start, blob.size, where)
    return parse_header(await _bytes(blob.slice(0, LENGTH_BYTES + length)), blob.size, where)
