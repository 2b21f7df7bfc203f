"""Atomic writer of safetensors files, tensor by tensor."""

from __future__ import annotations

import glob
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from gpt2_wgpu.errors import InvalidArgumentError, WeightsError
from gpt2_wgpu.weights.header import DTYPE_BITS

_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Description:
    """Name, dtype and shape of a tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        bits = DTYPE_BITS[self.dtype]
        for size in self.shape:
            bits *= size
        return bits // 8


class AtomicFile:
    """File that replaces ``path`` on success of the ``with`` block, and is deleted on failure.

    Raises:
        WeightsError: the directory cannot be written, or is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        _remove_stale_parts(path)
        try:
            self._file: IO[bytes] = self._part.open("xb")
        except OSError as error:
            raise _cannot_write(path, error) from None

    @property
    def stream(self) -> IO[bytes]:
        """The open file, for a writer that seeks; its errors are OSErrors."""
        return self._file

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        try:
            self._file.write(data)
        except OSError as error:
            raise _cannot_write(self.path, error) from None

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                os.replace(self._part, self.path)
        except OSError as failure:
            raise _cannot_write(self.path, failure) from None
        finally:
            with suppress(OSError):  # a full disk: the bytes that could not be written before
                self._file.close()
            self._part.unlink(missing_ok=True)


def _remove_stale_parts(path: Path) -> None:
    """Remove partial files that are more than a day old."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink()


class SafetensorsWriter(AtomicFile):
    """Safetensors file of ``tensors``; `write` appends their bytes in order."""

    def __init__(
        self, path: Path, tensors: Sequence[Description], metadata: Mapping[str, str]
    ) -> None:
        super().__init__(path)
        self._left = sum(tensor.nbytes for tensor in tensors)
        header = header_of(tensors, metadata)
        self._left += len(header)
        self.write(header)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the current tensor."""
        self._left -= memoryview(data).nbytes
        super().write(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        short = InvalidArgumentError(f"{self.path}: {self._left} bytes were not written")
        failed = kind or (type(short) if self._left else None)
        super().__exit__(failed, error, traceback)
        if self._left and kind is None:
            raise short


def header_of(tensors: Sequence[Description], metadata: Mapping[str, str]) -> bytes:
    """Return length and JSON, padded so that the tensors start at a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _cannot_write(path: Path, error: OSError) -> WeightsError:
    return WeightsError(f"{path}: cannot be written: {error.strerror or error}")
