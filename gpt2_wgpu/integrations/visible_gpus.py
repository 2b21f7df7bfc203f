"""Which adapter belongs to the GPU that a scheduler gave this process.

Schedulers such as Ray hand out GPUs by environment variables that CUDA, HIP and Level Zero obey.
Vulkan, Metal and Direct3D do not, so without this every process would take the same GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpt2_wgpu.errors import NoAdapterError
from gpt2_wgpu.webgpu import AdapterInfo

# variable → PCI vendor of the GPUs that it numbers
_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": 0x10DE,
    "HIP_VISIBLE_DEVICES": 0x1002,
    "ROCR_VISIBLE_DEVICES": 0x1002,
    "ZE_AFFINITY_MASK": 0x8086,
}
_NONE = ("", "-1", "NoDevFiles")  # how these variables say: no GPU


def assigned_adapter(environment: Mapping[str, str], adapters: Sequence[AdapterInfo]) -> int | None:
    """The index in ``adapters`` of the first GPU that ``environment`` gives; None: it gives none.

    GPU n is the n-th adapter of its vendor: both count in the order of the PCI bus as a rule, and
    where they do not, two processes with different GPUs still get different adapters.

    Raises ``NoAdapterError`` if that GPU has no adapter, for a CPU would take its place in silence.
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
            f"{variable}={given} gives this process a GPU, but wgpu sees {len(found)} of that "
            f"vendor (adapters: {names}): install its Vulkan driver (in containers set "
            "NVIDIA_DRIVER_CAPABILITIES=all), or choose with adapter="
        )
    return None
