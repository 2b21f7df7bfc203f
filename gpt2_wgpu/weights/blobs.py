"""Checkpoints of browser blobs, read in pieces.

A blob is JavaScript's ``Blob`` or ``File`` (https://w3c.github.io/FileAPI/): a picked, stored or
downloaded file outside of Python's memory. Python reads headers only; tensors are copied from the
blob to the GPU directly.
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

_START = 256  # bytes needed to detect a wrong file type


class Bytes(Protocol):
    """Protocol of JavaScript's ``ArrayBuffer``."""

    def to_bytes(self) -> bytes:
        """Copy of the bytes."""


class Blob(Protocol):
    """Protocol of JavaScript's ``Blob``."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    def slice(self, begin: int, end: int) -> Blob:
        """Bytes ``begin`` to ``end`` as a blob, without a copy."""

    def arrayBuffer(self) -> Awaitable[Bytes]:
        """Read all bytes."""


class BlobCheckpoint:
    """`WeightSource` over blobs; created by ``await BlobCheckpoint.open(...)``."""

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
            blobs: file name → blob; files other than weights are ignored.
            where: name of the checkpoint in messages.

        Raises:
            WeightsError: as in `Checkpoint.open`.
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
        """The files' ``__metadata__``; if shards differ, that of the last one."""
        headers = self._headers.values()
        return {key: value for header in headers for key, value in header.metadata.items()}

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors, in the order of their bytes."""
        return tuple(self._file_of)

    def entry(self, name: str) -> TensorEntry:
        """Return dtype, shape and byte range (in its file) of a tensor.

        Raises:
            WeightsError: the tensor does not exist.
        """
        return self._headers[self._file(name)].tensors[name]

    def read(self, name: str) -> BlobRange:
        """Return the byte range of a tensor.

        Raises:
            WeightsError: the tensor does not exist.
        """
        entry = self.entry(name)
        return BlobRange(self._blobs[self._file(name)], entry.begin, entry.end)

    def _file(self, name: str) -> str:
        try:
            return self._file_of[name]
        except KeyError:
            raise WeightsError(f"{self.where}: there is no tensor {shown(name)}") from None


async def read_blob(blob: Blob, where: str) -> bytes:
    """Read all bytes of a configuration, index or tokenizer file.

    Raises:
        WeightsError: the file is too large.
    """
    try:
        small_files.check_size(blob.size)
    except ValueError as error:
        raise WeightsError(f"{where}: {error}") from None
    return await _bytes(blob)


async def read_range(place: BlobRange) -> bytes:
    """Read a byte range of a blob."""
    return await _bytes(place.blob.slice(place.begin, place.end))


async def _bytes(blob: Blob) -> bytes:
    return (await blob.arrayBuffer()).to_bytes()


async def _header(blob: Blob, where: str) -> Header:
    start = await _bytes(blob.slice(0, min(_START, blob.size)))
    length = header_length(start, blob.size, where)
    return parse_header(await _bytes(blob.slice(0, LENGTH_BYTES + length)), blob.size, where)
