"""How well logits predict the tokens that follow."""

from __future__ import annotations

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.gpu.commands import dispatch
from gpt2_wgpu.gpu.ops.grids import groups_for
from gpt2_wgpu.gpu.tensor import Tensor, empty

NO_TARGET = 0xFFFFFFFF  # in ``targets``: nothing to predict


def target_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[targets] in nats, 0 for ``NO_TARGET``.

    ``logits`` [R, V], ``targets`` [R] uint32 → [R]. Raises ``ShapeError``.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ShapeError(f"target_loss: logits {logits.shape}, targets {targets.shape}")
    rows, columns = logits.shape
    result = empty(logits.device, (rows,))
    # A CPU adapter runs the threads of a workgroup in turns: fewer of them switch less often.
    few = logits.device.capabilities.barrier_free
    dispatch(
        logits.device,
        "target_loss",
        groups_for(rows),
        {"logits": logits, "targets": targets, "result": result},
        {"rows": rows, "columns": columns},
        constants={"WORKGROUP": 32 if few else 256},
    )
    return result
