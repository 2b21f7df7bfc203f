"""Files that appear in a directory together, or not at all."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gpt2_wgpu.errors import WeightsError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_STALE_SECONDS = 24 * 3600  # where no lock can tell: longer than any conversion


class StagedDirectory:
    """Files written to ``path``, which become ``destination`` when the ``with`` block ends well.

    A destination that does not exist appears in one rename. One that exists stays the directory it
    is: what it holds under the names ``replaced`` gives way to the new files, and ``last`` goes
    first and comes last, so that a process that is killed in between leaves a directory without
    that file and never a mixture. What killed processes left behind is removed by the next one.

    Raises:
        WeightsError: the directory cannot be made or written to; what was there is as it was.
    """

    def __init__(self, destination: Path, replaced: Collection[str], last: str) -> None:
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
        except OSError as error:
            raise _cannot_make(destination, error) from None
        self._lock = _locked(self.path)

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
        except OSError as failure:
            raise _cannot_make(self.destination, failure) from None
        finally:
            if self._lock is not None:
                os.close(self._lock)
            shutil.rmtree(self.path, ignore_errors=True)

    def _publish(self) -> None:
        if not self._in_place:
            self.path.rename(self._place)
            return
        new = [path.name for path in self.path.iterdir()]
        old = self.path / "replaced"
        old.mkdir()
        moved: list[tuple[Path, Path]] = []
        try:
            for name in _ordered({*self._replaced, *new}, first=self._last):
                if (self.destination / name).exists():
                    _move(self.destination / name, old / name, moved)
            for name in reversed(_ordered(new, first=self._last)):
                _move(self.path / name, self.destination / name, moved)
        except BaseException:
            for source, target in reversed(moved):
                target.replace(source)
            raise


def _ordered(names: Collection[str], first: str) -> list[str]:
    return sorted(names, key=lambda name: (name != first, name))


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    source.replace(target)
    moved.append((source, target))


def _locked(directory: Path) -> int | None:
    """A lock that lasts as long as this process: other processes leave the directory alone."""
    if fcntl is None:
        return None
    with suppress(OSError):  # a file system without locks
        descriptor = os.open(directory, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    return None


def _remove_if_stale(directory: Path) -> None:
    """Remove what a process left that has ended."""
    lock = _locked(directory)
    with suppress(OSError):
        if lock is not None or time.time() - directory.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(directory, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _cannot_make(directory: Path, error: OSError) -> WeightsError:
    return WeightsError(f"{directory}: cannot be made: {error.strerror or error}")
