"""Launch parameters: dispatch grids, and the choice of kernel variants along rows."""

from __future__ import annotations

from gpt2_wgpu.errors import LimitError
from gpt2_wgpu.webgpu.device import Device
from gpt2_wgpu.webgpu.queue import Grid

_MAX_GROUPS = 65_535  # workgroups per dimension that WebGPU allows: long lists use two
WORKGROUP = 128  # threads that share a row, as in the kernels
_REDUCING = 23  # loop iterations of one reduction over a workgroup of 128 threads
_REDUCING_MOST = 32  # the same for 256 threads


def groups_for(items: int, per_group: int = 1) -> Grid:
    """Return a grid of at least ``items / per_group`` workgroups, numbered y * workgroups.x + x."""
    groups = -(-items // per_group)
    columns = min(groups, _MAX_GROUPS)
    return (columns, -(-groups // columns) if columns else 0, 1)


def iterations(columns: int, shared: bool) -> int:
    """Return the loop iterations of one thread per pass over a row, possibly ``shared``.

    Includes one for an enclosing loop.
    """
    return -(-columns // WORKGROUP) + _REDUCING + 1 if shared else columns + 1


def use_cpu_kernel(device: Device, function: str, columns: int, passes: int) -> bool:
    """Return whether to use the kernel ``<name>_cpu``, one thread per row, for ``passes`` loops.

    LimitError if a thread's loops would end before the row does.
    """
    most = device.capabilities.max_iterations
    if device.capabilities.prefers_no_barriers and passes * iterations(columns, False) <= most:
        return True
    if passes * iterations(columns, True) > most:
        raise LimitError(
            f"{function}: rows of {columns:,} are too long for {device.info.name}, which ends a "
            f"loop after {most:,} iterations: use shorter rows or a GPU"
        )
    return False


def threads_per_row(device: Device, function: str, columns: int, passes: int) -> int:
    """Return the number of threads per row, for kernels with a configurable workgroup size.

    A CPU adapter runs the threads of a workgroup in turn: fewer threads switch less often.
    LimitError if the loops would end before the row does.
    """
    most = device.capabilities.max_iterations
    for threads in (32, 256) if device.capabilities.prefers_no_barriers else (256,):
        if passes * (-(-columns // threads) + _REDUCING_MOST) <= most:
            return threads
    raise LimitError(
        f"{function}: rows of {columns:,} are too long for {device.info.name}, which ends a loop "
        f"after {most:,} iterations: use a GPU"
    )
