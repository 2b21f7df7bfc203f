"""Which kernel works along the rows of an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2_wgpu.errors import LimitError

if TYPE_CHECKING:
    from gpt2_wgpu.webgpu.device import Device

WORKGROUP = 128  # threads that share a row, as in the kernels
_REDUCING = 23  # iterations of one reduction over a workgroup,
_REDUCING_MOST = 32  # and over one of 256 threads


def iterations(columns: int, shared: bool) -> int:
    """Loop iterations of one thread in one pass over a row, of its own or ``shared``.

    One is added for a loop around the pass.
    """
    return -(-columns // WORKGROUP) + _REDUCING + 1 if shared else columns + 1


def one_thread_a_row(device: Device, function: str, columns: int, passes: int) -> bool:
    """Whether the kernel ``<name>_cpu``, one thread a row, suits ``passes`` loops over each row.

    Raises ``LimitError`` where a thread's loops would end before the row does.
    """
    most = device.capabilities.max_iterations
    if device.capabilities.barrier_free and passes * iterations(columns, False) <= most:
        return True
    if passes * iterations(columns, True) > most:
        raise LimitError(
            f"{function}: rows of {columns:,} are too long for {device.info.name}, which ends a "
            f"loop after {most:,} iterations: use shorter rows or a GPU"
        )
    return False


def threads_of_a_row(device: Device, function: str, columns: int, passes: int) -> int:
    """How many threads share a row in a kernel that takes their number.

    A CPU adapter runs the threads of a workgroup in turns: fewer of them switch less often.
    Raises ``LimitError`` where their loops would end before the row does.
    """
    most = device.capabilities.max_iterations
    for threads in (32, 256) if device.capabilities.barrier_free else (256,):
        if passes * (-(-columns // threads) + _REDUCING_MOST) <= most:
            return threads
    raise LimitError(
        f"{function}: rows of {columns:,} are too long for {device.info.name}, which ends a loop "
        f"after {most:,} iterations: use a GPU"
    )
