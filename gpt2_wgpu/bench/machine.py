"""Versions of software and system, and CPU use by other processes."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path

from gpt2_wgpu._version import __version__

_STAT = Path("/proc/stat")


def versions() -> dict[str, str]:
    """Return the versions of packages, Python and the operating system."""
    try:
        wgpu = metadata.version("wgpu")
    except metadata.PackageNotFoundError:
        wgpu = "unknown"
    release = platform.release().partition("-")[0]  # the rest identifies a build, often a machine
    return {
        "gpt2-wgpu": __version__,
        "wgpu": wgpu,
        "python": platform.python_version(),
        "system": f"{platform.system()} {release} {platform.machine()}",
    }


class ProcessorUse:
    """CPU use of other processes, from construction to :meth:`foreign_cores`.

    The threads of a software adapter belong to this process and are excluded.
    """

    def __init__(self) -> None:
        self._begun = self._readings()

    def foreign_cores(self) -> float | None:
        """Return the mean number of cores used by others; None if unknown."""
        now = self._readings()
        if self._begun is None or now is None:
            return None
        seconds, busy, own = (b - a for a, b in zip(self._begun, now, strict=True))
        return max(0.0, busy - own) / max(seconds, 1e-9)

    @staticmethod
    def _readings() -> tuple[float, float, float] | None:
        """Return seconds of wall clock, of all busy cores, and of this process."""
        try:
            # cpu  user nice system idle iowait irq softirq steal ... in ticks (proc_stat(5))
            ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
            own = os.times()
            return (
                time.perf_counter(),
                (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"),
                sum(own[:4]),
            )
        except (OSError, AttributeError, ValueError, IndexError):  # not Linux
            return None


def load_average() -> list[float] | None:
    """Return the load average of 1, 5 and 15 minutes; None if unknown."""
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (OSError, AttributeError):
        return None
