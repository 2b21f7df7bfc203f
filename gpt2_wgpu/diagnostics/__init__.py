"""Diagnostics: memory reports, profiling, kernel checks, memory bandwidth, time per dtype."""

from __future__ import annotations

from gpt2_wgpu.diagnostics.bandwidth import (
    PeakReadBandwidth,
    ReadRate,
    peak_read_bandwidth,
    peak_read_bandwidth_async,
)
from gpt2_wgpu.diagnostics.checks import Check, CheckReport
from gpt2_wgpu.diagnostics.memory_reports import (
    LiveTensor,
    leaks,
    memory,
    set_memory_budget,
    set_memory_debug,
    trim,
)
from gpt2_wgpu.diagnostics.profiling import Profile, profile, profile_async

__all__ = [
    "Check",
    "CheckReport",
    "LiveTensor",
    "PeakReadBandwidth",
    "Profile",
    "ReadRate",
    "leaks",
    "memory",
    "peak_read_bandwidth",
    "peak_read_bandwidth_async",
    "profile",
    "profile_async",
    "set_memory_budget",
    "set_memory_debug",
    "trim",
]
