"""A language model's head: logits of the newest tokens, as :func:`sample` takes them."""

from __future__ import annotations

from dataclasses import astuple

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn.linear_layers import Norm, check_depth, dispatch_linear
from gpt2_wgpu.nn.matrix import Matrix
from gpt2_wgpu.nn.sampling import SamplingState
from gpt2_wgpu.tensors.tensor import Tensor, empty


def project_logits(
    x: Tensor, weight: Matrix, state: SamplingState, *, norm: Norm | None = None
) -> Tensor:
    """Logits [B, V] of the rows ``x`` [B, 1, K] by the head ``weight`` [V, K].

    Penalised as ``state`` says, where the largest of each 256 is noted. Raises ``ShapeError``.
    """
    check_depth("project_logits", x, weight)
    rows = state.position.size
    if x.size != rows * x.shape[-1] or weight.rows < state.candidates:
        raise ShapeError(
            f"project_logits: x {x.shape} and weight [{weight.rows}, {weight.depth}] for {rows} "
            f"rows that choose from {state.candidates} candidates"
        )
    logits = empty(x.device, (rows, weight.rows))
    repetition, presence, frequency = astuple(state.penalties)
    dispatch_linear(
        x,
        weight,
        None,
        norm,
        "logits",
        {"result": logits, "maxima_and_counts": state.maxima_and_counts},
        {
            "candidates": state.candidates,
            "maxima_and_counts_width": state.maxima_and_counts.shape[1],
            "repetition": repetition,
            "presence": presence,
            "frequency": frequency,
        },
        {"HAS_PENALTIES": int(state.counted)},
    )
    return logits
