"""Losses per position: cross-entropy of targets, and KL divergence from a reference model."""

from __future__ import annotations

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.tensors.dispatch import dispatch
from gpt2_wgpu.tensors.ops.launch import groups_for, threads_per_row
from gpt2_wgpu.tensors.tensor import Tensor, empty

NO_TARGET = 0xFFFFFFFF  # in ``targets``: position without a target


def target_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy -log softmax(logits)[targets] in nats, 0 for ``NO_TARGET``.

    ``logits`` [R, V], ``targets`` [R] uint32 → [R]. ShapeError, LimitError.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ShapeError(f"target_loss: logits {logits.shape}, targets {targets.shape}")
    tokens, vocabulary = logits.shape
    threads = threads_per_row(logits.device, "target_loss", vocabulary, passes=2)
    result = empty(logits.device, (tokens,))
    dispatch(
        logits.device,
        "target_loss",
        groups_for(tokens),
        {"logits": logits, "targets": targets, "result": result},
        {"tokens": tokens, "vocabulary": vocabulary},
        constants={"WORKGROUP": threads},
    )
    return result


def token_odds(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy and entropy in nats, rank of the target, and log of the normaliser: [R, 4].

    ``logits`` [R, V], ``targets`` [R] uint32. The rank is the number of larger logits; it and the
    cross-entropy are 0 for ``NO_TARGET``. ShapeError, LimitError.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ShapeError(f"token_odds: logits {logits.shape}, targets {targets.shape}")
    tokens, vocabulary = logits.shape
    threads = threads_per_row(logits.device, "token_odds", vocabulary, passes=2)
    result = empty(logits.device, (tokens, 4))
    dispatch(
        logits.device,
        "token_odds",
        groups_for(tokens),
        {"logits": logits, "targets": targets, "result": result},
        {"tokens": tokens, "vocabulary": vocabulary},
        constants={"WORKGROUP": threads},
    )
    return result


def divergence(logits: Tensor, reference: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """KL(softmax(reference) || softmax(logits)) in nats, and 1.0 where both have the same argmax.

    ``logits``, ``reference`` [R, V], ``targets`` [R] uint32 → two tensors [R], 0 for ``NO_TARGET``.
    ShapeError, LimitError.
    """
    shapes = (logits.shape, reference.shape, targets.shape)
    if logits.ndim != 2 or shapes != (logits.shape, logits.shape, logits.shape[:1]):
        raise ShapeError("divergence: logits {}, reference {}, targets {}".format(*shapes))
    tokens, vocabulary = logits.shape
    threads = threads_per_row(logits.device, "divergence", vocabulary, passes=3)
    results = empty(logits.device, (tokens,)), empty(logits.device, (tokens,))
    dispatch(
        logits.device,
        "divergence",
        groups_for(tokens),
        {
            "logits": logits,
            "reference": reference,
            "targets": targets,
            "divergence": results[0],
            "agreement": results[1],
        },
        {"tokens": tokens, "vocabulary": vocabulary},
        constants={"WORKGROUP": threads},
    )
    return results
