"""Similarity of hidden states, for contrastive search."""

from __future__ import annotations

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty


def similarity(x: Tensor, history: Tensor, position: Tensor) -> Tensor:
    """Return cosine similarities [G * R, T] of ``x`` with the earlier hidden states of its group.

    Args:
        x: [G * R, D] float32.
        history: [G, T, D] float32.
        position: [G, R] uint32; row r is compared with places before ``position[r]``. The result
            at the others is -2.

    Raises:
        ShapeError: the shapes are incompatible.
    """
    rows = _rows("similarity", x, history, position)
    _, length, width = history.shape
    result = empty(x.device, (x.shape[0], length))
    dispatch(
        x.device,
        "similarity",
        groups_for(result.size, 64),
        {"x": x, "history": history, "position": position, "result": result},
        {"count": result.size, "rows": rows, "length": length, "width": width},
    )
    return result


def append_hidden(
    x: Tensor, history: Tensor, parents: Tensor, position: Tensor, first: Tensor
) -> None:
    """Write row ``parents[g, 0]`` of ``x`` to ``history[g, position[g, 0] - 1]``.

    Where ``position`` is not greater than ``first``, nothing is written. Shapes and errors are
    those of :func:`similarity`.
    """
    rows = _rows("append_hidden", x, history, position)
    if parents.shape != position.shape or first.shape != position.shape:
        raise ShapeError(
            f"append_hidden: parents {parents.shape} and first {first.shape}, not {position.shape}"
        )
    groups, length, width = history.shape
    dispatch(
        x.device,
        "append_hidden",
        groups_for(groups * width, 64),
        {"x": x, "parents": parents, "position": position, "first": first, "history": history},
        {"count": groups * width, "rows": rows, "length": length, "width": width},
    )


def _rows(name: str, x: Tensor, history: Tensor, position: Tensor) -> int:
    """Return the number of rows of a group; ShapeError for incompatible shapes."""
    fits = x.ndim == 2 and history.ndim == 3 and position.ndim == 2
    if not fits or (x.shape[0], history.shape[0], history.shape[2]) != (
        position.size,
        position.shape[0],
        x.shape[1],
    ):
        raise ShapeError(
            f"{name}: x {x.shape}, history {history.shape} and position {position.shape}"
        )
    return position.shape[1]
