"""Language-model head: logits of the newest tokens, as input of :func:`sample`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.nn.linear_layers import Norm, check_in_features, dispatch_linear
from gpt2_wgpu.nn.matrix import Matrix
from gpt2_wgpu.nn.sampling import SamplingState
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for
from gpt2_wgpu.tensors.tensor import Tensor, empty


def project_logits(
    x: Tensor, weight: Matrix, state: SamplingState, *, norm: Norm | None = None
) -> Tensor:
    """Return logits [B, V] of ``x`` [B, 1, K] by the head ``weight`` [V, K].

    The logits are penalised according to ``state``, and the maximum of each chunk of 256 is
    written to it. ShapeError for incompatible shapes.
    """
    check_in_features("project_logits", x, weight)
    rows = state.position.size
    if x.size != rows * x.shape[-1] or weight.out_features < state.candidates:
        raise ShapeError(
            f"project_logits: x {x.shape} and weight {weight.shape} for {rows} "
            f"rows that choose from {state.candidates} candidates"
        )
    logits = empty(x.device, (rows, weight.out_features))
    dispatch_linear(
        x,
        weight,
        None,
        norm,
        "logits",
        {"result": logits, "maxima_and_counts": state.maxima_and_counts},
        _params(state),
        {"HAS_PENALTIES": int(state.counted)},
    )
    return logits


def penalize(logits: Tensor, state: SamplingState) -> Tensor:
    """Return ``logits`` [B, V], with biases, penalised as by :func:`project_logits`; ShapeError."""
    rows = state.position.size
    if logits.ndim != 2 or logits.shape[0] != rows or logits.shape[1] < state.candidates:
        raise ShapeError(
            f"penalize: logits {logits.shape} for {rows} rows that choose from "
            f"{state.candidates} candidates"
        )
    result = empty(logits.device, logits.shape)
    unused = {"in_features8": 0, "first_out_feature": 0, "norm_features": 0, "epsilon": 0.0}
    dispatch(
        logits.device,
        "penalize",
        groups_for(logits.size, 64),
        {
            "x": logits,
            "bias": logits if state.bias is None else state.bias,
            "result": result,
            "maxima_and_counts": state.maxima_and_counts,
        },
        {
            "tokens": rows,
            "out_features": logits.shape[1],
            "total_out_features": logits.shape[1],
            **unused,
            **_params(state),
        },
        constants={
            "HAS_PENALTIES": int(state.counted),
            "HAS_BIAS": 0,
            "HAS_LOGIT_BIAS": int(state.bias is not None),
            "BIAS_OF_ROW": int(state.bias is not None and state.bias.ndim == 2),
        },
    )
    return result


def _params(state: SamplingState) -> dict[str, Any]:
    """Return the parameters of store_logits.wgsl for ``state``."""
    return {
        "candidates": state.candidates,
        "maxima_and_counts_width": state.maxima_and_counts.shape[1],
        **asdict(state.penalties),
    }
