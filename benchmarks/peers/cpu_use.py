"""CPU use of other processes during a measurement. Linux only: reads /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class ForeignCpu:
    """Mean number of cores used by other processes between construction and :meth:`cores`."""

    def __init__(self) -> None:
        self._begun, self._busy, self._own = time.monotonic(), _busy(), _own()

    def cores(self) -> float | None:
        """Return the mean number of cores used by others; None without /proc."""
        if self._busy is None:
            return None
        seconds = time.monotonic() - self._begun
        busy, own = (_busy() or 0.0) - self._busy, _own() - self._own
        return max(0.0, busy - own) / seconds


def _busy() -> float | None:
    """Return the CPU seconds of the machine since boot."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / _TICKS


def _own() -> float:
    """Return the CPU seconds of this process and its living descendants."""
    parents, seconds = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # ended meanwhile
        pid = int(entry.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    family, grown = {os.getpid()}, True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in family} - family
        grown = bool(children)
        family |= children
    return sum(seconds.get(pid, 0.0) for pid in family)
