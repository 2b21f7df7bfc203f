"""Token and position embeddings."""

from __future__ import annotations

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.gpu.commands import dispatch
from gpt2_wgpu.gpu.layers.weights import Matrix
from gpt2_wgpu.gpu.ops.grids import groups_for
from gpt2_wgpu.gpu.tensor import Tensor, empty


def embed(ids: Tensor, start: Tensor, wte: Matrix, wpe: Tensor) -> Tensor:
    """wte[ids[b, t]] + wpe[start[b] + t].

    ``ids`` [B, T] uint32 (in range: callers check), ``start`` [B] uint32, ``wte`` [V, D],
    ``wpe`` [P, D] → [B, T, D]. Raises ``ShapeError``.
    """
    if ids.ndim != 2 or start.shape != ids.shape[:1] or wpe.shape[-1] != wte.depth:
        raise ShapeError(
            f"embed: ids {ids.shape}, start {start.shape}, wte [{wte.rows}, {wte.depth}], "
            f"wpe {wpe.shape}: expected [B, T], [B], [V, D], [P, D]"
        )
    result = empty(ids.device, (*ids.shape, wte.depth))
    for first, part in wte.parts:
        dispatch(
            ids.device,
            "embed",
            groups_for(ids.size * wte.depth // 8, 64),
            {"ids": ids, "weights": part, "wpe": wpe, "start": start, "result": result},
            {
                "rows": ids.size,
                "tokens": ids.shape[1],
                "depth8": wte.depth // 8,
                "first": first,
                "lines": part.shape[0],
                "positions": wpe.shape[0],
            },
            variant={"weight": wte.variant},
        )
    return result
