"""A safetensors file on disk, mapped into memory and read without copies."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.header import Header, TensorEntry, header_length, parse_header

__all__ = ["Header", "SafetensorsFile", "TensorEntry", "header_length", "parse_header"]


class SafetensorsFile:
    """A mapped, read-only safetensors file; opening it reads the header and nothing else.

    Closing: views handed out by `read` stay valid after `close`. The map itself goes away with the
    last of them, so closing early is always safe; only further `read` calls are refused.

    Raises:
        WeightsError: the file cannot be read or breaks a rule of the format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._map: mmap.mmap | None = _map_file(self.path)
        try:
            with memoryview(self._map or b"") as view:
                self._header = parse_header(view, len(view), str(self.path))
        except WeightsError:
            self.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorEntry]:
        """Name → entry, in the order of the bytes."""
        return self._header.tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's free-form ``__metadata__``."""
        return self._header.metadata

    def read(self, name: str) -> memoryview:
        """Return a tensor's bytes as a read-only view of the map: no copy, format ``B``.

        Raises:
            WeightsError: there is no such tensor, or the file has been closed.
        """
        entry = self.tensors.get(name)
        if entry is None:
            raise WeightsError(f"{self.path}: there is no tensor {shown(name)}")
        if self._map is None:
            raise WeightsError(
                f"{self.path}: tensor {shown(name)} was read after the file was closed"
            )
        return memoryview(self._map)[entry.begin : entry.end]

    def close(self) -> None:
        """Let go of the map. Idempotent; see the class for views that are still in use."""
        mapped, self._map = self._map, None
        if mapped is not None:
            # BufferError: views are in use; the last one to be released unmaps the file.
            with contextlib.suppress(BufferError):
                mapped.close()

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _map_file(path: Path) -> mmap.mmap | None:
    """Map a regular file read-only; None for an empty one, which no system maps."""
    try:
        if path.exists() and not path.is_file():  # open() would wait for ever on a named pipe
            raise WeightsError(f"{path}: this is not a regular file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return None
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except WeightsError:
        raise
    except ValueError:  # a NUL, or a lone surrogate
        raise WeightsError(f"{shown(str(path))} cannot be the name of a file") from None
