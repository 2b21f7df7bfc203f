"""What kernels may choose by: facts of an adapter, never a vendor's name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AdapterInfo:
    """Who computes."""

    name: str
    vendor: str
    backend: str
    driver: str
    adapter_type: str
    vendor_id: int = 0  # of the PCI bus; 0 where nobody tells

    @property
    def is_software(self) -> bool:
        """True for CPU implementations of WebGPU (llvmpipe, SwiftShader, WARP)."""
        return self.adapter_type == "CPU"

    @classmethod
    def from_adapter(cls, info: Mapping[str, Any]) -> AdapterInfo:
        def text(key: str, default: str = "") -> str:
            return str(info.get(key) or default)

        software = "swiftshader" in f"{info.get('architecture')} {info.get('device')}".lower()
        return cls(
            name=text("device", text("description", "unknown adapter")),
            vendor=text("vendor"),
            backend=text("backend_type", "WebGPU"),
            driver=text("description"),
            adapter_type="CPU" if software else text("adapter_type", "unknown"),
            vendor_id=int(info.get("vendor_id") or 0),
        )


@dataclass(frozen=True)
class Capabilities:
    """Which variant of a kernel suits this device.

    ``barrier_free``: on a CPU adapter a workgroup barrier costs more than a reduction, which one
    thread does there; on a GPU a workgroup shares it. (A kernel may have one barrier all the same:
    before work that is many times what it costs.)

    ``integer_products``: a CPU adapter multiplies a row with quantised weights faster in integers,
    activations rounded to int8 (layers/integer_products.py); on a GPU memory limits, and the float
    product is exact.

    ``max_iterations``: Mesa's llvmpipe counts the iterations of all loops of a thread together and
    ends every loop, in silence, once they reach this (LP_MAX_TGSI_LOOP_ITERATIONS in its
    ``lp_bld_limits.h``); other adapters have no such limit.
    """

    barrier_free: bool
    max_binding: int  # bytes of one storage binding
    max_iterations: int  # of one thread's loops
    integer_products: bool
    prefill_rows: int  # rows (batch x tokens) of one prefill submit, at most: bounds its time

    @classmethod
    def of(cls, info: AdapterInfo, limits: Mapping[str, int]) -> Capabilities:
        return cls(
            barrier_free=info.is_software,
            max_binding=limits["max-storage-buffer-binding-size"],
            max_iterations=65_535 if "llvmpipe" in info.name.lower() else 1 << 32,
            integer_products=info.is_software,
            prefill_rows=128 if info.is_software else 512,
        )


def default_budget(info: AdapterInfo) -> int:
    """Default GPU memory budget: bytes that may be live unless the user sets another.

    WebGPU does not report an adapter's memory, and drivers accept absurd sizes and swap. An adapter
    that computes in the machine's own memory may take four fifths of it. The memory of a discrete
    GPU is unknown, so the budget is twice the machine's: it rejects absurd sizes only.
    """
    machine = _machine_bytes()
    return machine * 2 if info.adapter_type == "DiscreteGPU" else machine * 4 // 5


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known on Windows and in browsers
        return 8 << 30
