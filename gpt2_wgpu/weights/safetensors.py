"""Memory-mapped safetensors file, read without copies."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

from gpt2_wgpu.errors import WeightsError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.closing import Closing
from gpt2_wgpu.weights.header import Header, TensorEntry, header_length, parse_header

__all__ = ["Header", "SafetensorsFile", "TensorEntry", "header_length", "parse_header"]


class SafetensorsFile(Closing):
    """Read-only memory-mapped safetensors file; opening it reads the header only.

    Views returned by `read` stay valid after `close`: the file is unmapped with the last view.
    After `close`, `read` raises.

    Raises:
        WeightsError: the file cannot be read or violates the format.
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
        """Name → entry, in the order of their bytes."""
        return self._header.tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free-form ``__metadata__`` of the file."""
        return self._header.metadata

    def read(self, name: str) -> memoryview:
        """Return a tensor's bytes as a read-only view of the map (format ``B``), without a copy.

        Raises:
            WeightsError: the tensor does not exist, or the file is closed.
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
        """Close the map. Idempotent; views in use stay valid."""
        mapped, self._map = self._map, None
        if mapped is not None:
            # BufferError: views are in use; releasing the last one unmaps the file.
            with contextlib.suppress(BufferError):
                mapped.close()


def _map_file(path: Path) -> mmap.mmap | None:
    """Map a regular file read-only; None for an empty one, which cannot be mapped."""
    try:
        if path.exists() and not path.is_file():  # open() would block on a named pipe
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
        raise WeightsError(f"{shown(str(path))} is not a valid file name") from None
