"""Atomic replacement of several files of a directory."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gpt2_wgpu.errors import WeightsError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_STALE_SECONDS = 24 * 3600  # on systems without locks; longer than any conversion
_YOUNG_SECONDS = 60  # a directory is locked shortly after its creation
_REPLACED = "replaced"  # the old files, until all new ones are in place


class StagedDirectory:
    """Staging directory ``path``, moved to ``destination`` on success of the ``with`` block.

    A new destination is created by one rename. In an existing one, the files named in
    ``replaced`` are first moved out in that order, ``last`` before all others, then the new files
    are moved in, ``last`` at the end. If the process is killed in between, ``last`` is missing,
    and old and new files are never mixed.

    Staging directories of killed processes are removed by the next one, unless they contain old
    files.

    Raises:
        WeightsError: the directory cannot be created or written. The old files are unchanged, or,
            if they could not be moved back, the message has their location.
    """

    def __init__(self, destination: Path, replaced: Sequence[str], last: str) -> None:
        self.destination = destination
        self._replaced, self._last = replaced, last
        place = Path(os.path.realpath(destination))  # resolve() raises on a loop of links
        self._place, self._in_place = place, place.exists()
        parent = place if self._in_place else place.parent
        prefix = ".convert" if self._in_place else f".{place.name}"
        self.path = parent / f"{prefix}.{secrets.token_hex(4)}.part"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(f"{glob.escape(prefix)}.*.part"):
                _remove_if_stale(left)
            self.path.mkdir()
            self._lock = _locked(self.path)
        except OSError as error:
            raise _cannot_make(destination, error) from None

    def __enter__(self) -> StagedDirectory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._publish()
        except BaseException as failure:
            if _holds_old_files(self.path):
                raise WeightsError(
                    f"{self.destination}: its files could not all be replaced or moved back "
                    f"({failure!r}); move the old ones back from {self.path / _REPLACED}"
                ) from failure
            if isinstance(failure, OSError):
                raise _cannot_make(self.destination, failure) from None
            raise
        finally:
            if self._lock is not None:
                os.close(self._lock)
            if not _holds_old_files(self.path):
                shutil.rmtree(self.path, ignore_errors=True)

    def _publish(self) -> None:
        if not self._in_place:
            self.path.rename(self._place)
            return
        new = sorted(path.name for path in self.path.iterdir())
        order = list(dict.fromkeys([self._last, *self._replaced, *new]))
        old = self.path / _REPLACED
        old.mkdir()
        moved: list[tuple[Path, Path]] = []
        try:
            for name in order:
                if (self.destination / name).exists():
                    _move(self.destination / name, old / name, moved)
            for name in reversed(order):
                if name in new:
                    _move(self.path / name, self.destination / name, moved)
        except BaseException:
            try:
                _undo(moved)
            except (KeyboardInterrupt, SystemExit):  # a second signal
                _undo(moved)
                raise
            raise
        old.rename(self.path / "superseded")  # may be removed from now on


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    moved.append((source, target))  # first: a signal may arrive right after the rename
    source.replace(target)


def _undo(moved: list[tuple[Path, Path]]) -> None:
    """Move all files back, last first; after an exception, call again for the rest."""
    while moved:
        source, target = moved[-1]
        with suppress(FileNotFoundError):  # not moved, or already moved back
            target.replace(source)
        moved.pop()


def _holds_old_files(directory: Path) -> bool:
    """Return whether a directory may contain the only copy of replaced files."""
    try:
        return any((directory / _REPLACED).iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _locked(directory: Path) -> int | None:
    """Lock a directory for the lifetime of this process; None on systems without locks.

    Raises:
        BlockingIOError: another, living process holds the lock.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _remove_if_stale(directory: Path) -> None:
    """Remove the staging directory of a dead process, unless it contains old files."""
    with suppress(OSError):  # including BlockingIOError: its process is alive
        age = time.time() - directory.stat().st_mtime
        if age < _YOUNG_SECONDS or _holds_old_files(directory):
            return
        lock = _locked(directory)
        try:
            if lock is not None or age > _STALE_SECONDS:
                shutil.rmtree(directory, ignore_errors=True)
        finally:
            if lock is not None:
                os.close(lock)


def _cannot_make(directory: Path, error: OSError) -> WeightsError:
    return WeightsError(f"{directory}: cannot be created: {error.strerror or error}")
