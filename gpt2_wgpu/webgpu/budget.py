"""How much memory may be used when nobody says."""

from __future__ import annotations

import os

from gpt2_wgpu.webgpu.capabilities import AdapterInfo


def default_budget(info: AdapterInfo) -> int:
    """How many bytes may be live unless the user says otherwise.

    WebGPU does not tell how much memory an adapter has, and drivers accept absurd sizes and swap.
    An adapter that computes in the machine's own memory may take four fifths of it; of another
    one's memory nothing is known, so only what no machine of this size would have is refused.
    """
    machine = _machine_bytes()
    return machine * 2 if info.adapter_type == "DiscreteGPU" else machine * 4 // 5


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows and browsers do not tell
        return 8 << 30
