"""Adapter capabilities by which kernel variants are chosen; never a vendor's name."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AdapterInfo:
    """Identity and type of an adapter."""

    name: str
    vendor: str
    backend: str
    driver: str
    adapter_type: str
    vendor_id: int = 0  # PCI vendor id; 0 if unknown

    @property
    def is_software(self) -> bool:
        """True for CPU implementations of WebGPU (llvmpipe, SwiftShader, WARP)."""
        return self.adapter_type == "CPU"

    @classmethod
    def from_adapter(cls, info: Mapping[str, Any]) -> AdapterInfo:
        """Convert wgpu's ``GPUAdapter.info``."""

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
    """Device properties that determine kernel variants.

    ``prefers_no_barriers``: on a CPU adapter a workgroup barrier costs more than a reduction, so
    one thread does the reduction; on a GPU a workgroup shares it. (A kernel may still have one
    barrier before much longer work.)

    ``prefers_w8a8``: a CPU adapter is faster with W8A8 (nn/w8a8.py): quantised weights times
    activations rounded to int8. GPUs are memory-bound, and the float product is more accurate.

    ``emulates_packed_dot``: ``dot4I8Packed`` takes a CPU adapter more instructions than products of
    floats.

    ``prefers_f16_cache``: keys and values are stored as f16 by default. A GPU is bound by the bytes
    that a step reads; on CPU adapters f16 gains little (llvmpipe) or nothing (SwiftShader).

    ``shares_loads``: on a CPU adapter with subgroups, threads pass each other what they load. Only
    natively, where a kernel needs no ``enable subgroups;``.

    ``gemv_tokens``: most tokens that a GPU multiplies by GEMV. A discrete GPU has more cores than
    there are tiles for up to 64 tokens.

    ``tiles``: workgroups that keep a GPU's cores busy, which WebGPU does not count: about the cores
    of a large discrete GPU, and two for each core of a small integrated one. Products of fewer
    tiles take smaller ones.

    ``max_iterations``: Mesa's llvmpipe silently ends all loops of a thread after this total number
    of iterations (LP_MAX_TGSI_LOOP_ITERATIONS in its ``lp_bld_limits.h``); other adapters have no
    limit.
    """

    prefers_no_barriers: bool
    max_binding: int  # bytes of one storage binding
    max_iterations: int  # total of one thread's loops
    prefers_w8a8: bool
    prefers_f16_cache: bool
    prefill_rows: int  # max rows (batch x tokens) per prefill submit, to bound its time
    few_queries: int = 64  # on a CPU adapter attention spreads fewer queries over its lanes
    shares_loads: bool = False
    emulates_packed_dot: bool = False
    gemv_tokens: int = 32
    tiles: int = 16

    @classmethod
    def of(
        cls, info: AdapterInfo, limits: Mapping[str, int], features: Collection[str] = ()
    ) -> Capabilities:
        """Return the capabilities of an adapter with these limits and features."""
        return cls(
            prefers_no_barriers=info.is_software,
            max_binding=limits["max-storage-buffer-binding-size"],
            max_iterations=65_535 if "llvmpipe" in info.name.lower() else 1 << 32,
            prefers_w8a8=info.is_software,
            prefers_f16_cache=not info.is_software,
            prefill_rows=128 if info.is_software else 512,
            shares_loads=info.is_software and "subgroup" in features,
            emulates_packed_dot="swiftshader" in info.name.lower(),
            gemv_tokens=64 if info.adapter_type == "DiscreteGPU" else 32,
            tiles=128 if info.adapter_type == "DiscreteGPU" else 16,
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
