"""Dispatch grids: WebGPU allows 65,535 workgroups per dimension, so long lists use two."""

from __future__ import annotations

from gpt2_wgpu.webgpu.queue import Grid

_MOST = 65535


def groups_for(items: int, per_group: int = 1) -> Grid:
    """Return a grid of at least ``items / per_group`` workgroups, numbered y * workgroups.x + x."""
    groups = -(-items // per_group)
    columns = min(groups, _MOST)
    return (columns, -(-groups // columns) if columns else 0, 1)
