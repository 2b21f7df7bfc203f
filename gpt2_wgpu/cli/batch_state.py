"""The file beside the output of `gpt2-wgpu batch`: a lock, and the options of an unfinished run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gpt2_wgpu import strict_json
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown


class BatchState:
    """Options of the run that began a file, in a locked file OUT.run."""

    def __init__(self, file: IO[bytes], target: Path) -> None:
        self._file = file
        self._target = target
        self.finished = False

    def read(self) -> dict[str, Any] | None:
        """Return the options; None if there are none, or they cannot be read."""
        self._file.seek(0)
        with contextlib.suppress(ValueError):
            options = strict_json.parse(self._file.read())
            return options if isinstance(options, dict) else None
        return None

    def check(self, options: dict[str, Any]) -> int | None:
        """Return the seed of the earlier run; None if it is not known.

        Raises:
            InvalidArgumentError: an option differs.
        """
        earlier = self.read()
        if earlier is None:
            return None
        seed = earlier.pop("seed", None)
        for name, value in options.items():
            if name in earlier and earlier[name] != value:
                raise InvalidArgumentError(
                    f"{self._target} was begun with {name} {shown(earlier[name])}, not "
                    f"{shown(value)}: give the same options, or begin anew with --force"
                )
        return seed if isinstance(seed, int) else None

    def write(self, options: dict[str, Any]) -> None:
        """Replace the options; InvalidArgumentError if the file cannot be written."""
        try:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(options, indent=1).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InvalidArgumentError(
                f"cannot write {_path(self._target)}: {error.strerror}"
            ) from None


@contextlib.contextmanager
def locked_state(target: Path) -> Iterator[BatchState]:
    """Lock the file beside ``target``; it is removed if the run has finished, or stored nothing.

    Raises:
        InvalidArgumentError: another process has locked it, or it cannot be opened.
    """
    path = _path(target)
    try:
        file = path.open("a+b")
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {path}: {error.strerror}") from None
    with file:
        if not _lock(file) or not _is_still(file, path):
            raise InvalidArgumentError(f"another run is writing {target}: wait until it ends")
        state = BatchState(file, target)
        try:
            yield state
        finally:
            if (state.finished or state.read() is None) and sys.platform != "win32":
                path.unlink(missing_ok=True)
    if state.finished and sys.platform == "win32":  # which does not remove open files
        path.unlink(missing_ok=True)


def _path(target: Path) -> Path:
    return target.with_name(target.name + ".run")


def _lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # not where the options are, which would then be unreadable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_still(file: IO[bytes], path: Path) -> bool:
    """Return whether the file has not been removed by a run that ended meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
