"""Token and position embeddings."""

from __future__ import annotations

from itertools import product

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn.matrix import Matrix
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty


def embed(ids: Tensor, start: Tensor, wte: Matrix, wpe: Matrix | Tensor) -> Tensor:
    """Token and position embedding: wte[ids[b, t]] + wpe[start[b] + t].

    ``ids`` [B, T] uint32 (the caller checks the range), ``start`` [B] uint32, ``wte`` [V, D],
    ``wpe`` [P, D] in float32 → [B, T, D]. ShapeError for incompatible shapes.
    """
    if isinstance(wpe, Tensor):
        wpe = Matrix(((0, wpe),), wpe.shape[0], wpe.shape[-1], wpe.dtype)
    if ids.ndim != 2 or start.shape != ids.shape[:1] or wpe.in_features != wte.in_features:
        raise ShapeError(
            f"embed: ids {ids.shape}, start {start.shape}, wte {wte.shape}, "
            f"wpe {wpe.shape}: expected [B, T], [B], [V, D], [P, D]"
        )
    result = empty(ids.device, (*ids.shape, wte.in_features))
    # Large tables have several parts; each token uses one part of each.
    for (first_row, part), (first_position, positions) in product(wte.parts, wpe.parts):
        dispatch(
            ids.device,
            "embed",
            groups_for(ids.size * wte.in_features // 8, 64),
            {"ids": ids, "weights": part, "wpe": positions, "start": start, "result": result},
            {
                "tokens": ids.size,
                "tokens_per_row": ids.shape[1],
                "in_features8": wte.in_features // 8,
                "first_row": first_row,
                "part_rows": part.shape[0],
                "positions": wpe.out_features,
                "first_position": first_position,
                "part_positions": positions.shape[0],
            },
            variant={"weight": wte.variant},
        )
    return result
