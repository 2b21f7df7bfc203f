"""Adapter of the GPU that a scheduler assigned to this process.

Schedulers like Ray assign GPUs through environment variables that CUDA, HIP and Level Zero read.
Vulkan, Metal and Direct3D ignore them, so by default every process would use the same GPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

from gpt2_wgpu.errors import NoAdapterError
from gpt2_wgpu.webgpu import AdapterInfo, Device, adapters

# variable → PCI vendor of the GPUs that it numbers
_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": 0x10DE,
    "HIP_VISIBLE_DEVICES": 0x1002,
    "ROCR_VISIBLE_DEVICES": 0x1002,
    "ZE_AFFINITY_MASK": 0x8086,
}
_NONE = ("", "-1", "NoDevFiles")  # values of these variables for "no GPU"


def assigned_adapter(environment: Mapping[str, str], adapters: Sequence[AdapterInfo]) -> int | None:
    """Return the index in ``adapters`` of the first GPU in ``environment``; None if it has none.

    GPU n is the n-th adapter of its vendor: usually both are in PCI bus order; if not, processes
    with different GPUs still get different adapters.

    Raises:
        NoAdapterError: the GPU has no adapter (the alternative is a silent fallback to the CPU).
    """
    for variable, vendor in _VARIABLES.items():
        given = environment.get(variable, "")
        number = given.partition(",")[0].strip()
        if number in _NONE:
            continue
        found = [index for index, info in enumerate(adapters) if info.vendor_id == vendor]
        # Windows shows each GPU once through Vulkan and once through Direct3D.
        found = [index for index in found if adapters[index].backend == adapters[found[0]].backend]
        if number.isdecimal() and int(number) < len(found):
            return found[int(number)]
        names = ", ".join(info.name for info in adapters) or "none"
        raise NoAdapterError(
            f"{variable}={given} assigns a GPU to this process, but wgpu finds {len(found)} of "
            f"that vendor (adapters: {names}): install its Vulkan driver (in containers set "
            "NVIDIA_DRIVER_CAPABILITIES=all), or choose with adapter="
        )
    return None


def open_assigned(adapter: int | str | None) -> Device:
    """Open an adapter; "auto": that of the GPU that was assigned to this process.

    Warns if none was assigned and wgpu has only a CPU adapter.
    """
    if adapter != "auto":
        return Device(adapter=adapter)
    device = Device(adapter=assigned_adapter(os.environ, adapters()))
    if device.info.is_software:
        warnings.warn(f"no GPU: this worker computes on the CPU ({device.info.name})", stacklevel=4)
    return device
