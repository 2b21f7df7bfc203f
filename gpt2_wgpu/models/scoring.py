"""``GPT2CausalLM.score``: logits of given tokens, or the losses of given targets."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.models.evaluation import LOGIT_BYTES
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone, Intercept
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.text.token_arrays import rows_of_ids

MODES = ("logits", "loss")


def score(
    backbone: GPT2Backbone,
    token_ids: Any,
    padding_mask: Any,
    scoring_mode: str,
    intercept: Intercept | None,
    target_ids: Any,
) -> Tensor:
    """See ``GPT2CausalLM.score``."""
    if scoring_mode not in MODES:
        raise InvalidArgumentError(
            f"scoring_mode must be 'logits' or 'loss', not {shown(scoring_mode)}"
        )
    targets = None
    if scoring_mode == "loss":
        if target_ids is None:
            raise InvalidArgumentError('scoring_mode="loss" needs target_ids: the ids to predict')
        targets = rows_of_ids(target_ids, backbone.config.vocab_size, "target_ids", ragged=False)
    with tidy("score") as scope:
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        x = backbone.forward_without_cache(inputs, intercept)
        if targets is None:
            return scope.escape(backbone.logits(x))
        if (len(targets), len(targets[0]) if targets else 0) != x.shape[:2]:
            raise ShapeError(
                f"target_ids has {len(targets)} rows of {len(targets[0]) if targets else 0} ids "
                f"for token_ids {list(x.shape[:2])}"
            )
        return scope.escape(_losses(backbone, x, targets))


def _losses(backbone: GPT2Backbone, x: Tensor, targets: list[list[int]]) -> Tensor:
    """Return the cross-entropy [B, T] of ``targets``, in chunks: logits take much memory."""
    wanted = [token for row in targets for token in row]
    width = x.shape[-1]
    rows = x.view((len(wanted), width))
    most = max(1, LOGIT_BYTES // (4 * backbone.config.vocab_size))
    losses = []
    for first in range(0, len(wanted), most):
        part = wanted[first : first + most]
        with tidy() as scope:
            states = ops.slice(rows, (first, 0), (len(part), width))
            logits = backbone.logits(states)
            losses.append(scope.escape(nn.target_loss(logits, backbone.as_uint32(part))))
    return (losses[0] if len(losses) == 1 else ops.concat(losses, 0)).view(x.shape[:2])
