"""Causal attention, dropout and loss optimised for CPUs.

PyTorch's fused CPU attention has a slow backward pass, and its dropout spends most of its time in
the random generator; together they took two fifths of a training step.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

QUERY_BLOCK = 128
POOL = 1 << 22
LOSS_ROWS = 512


class CausalAttention(torch.autograd.Function):
    """Causal softmax(q kᵀ / sqrt(d)) v in blocks of queries.

    A block reads only the keys up to its end, about half of the full square.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length, size = q.shape[-2:]
        q = q * (1 / math.sqrt(size))
        outs, shares = [], []
        for i in range(0, length, QUERY_BLOCK):
            j = min(length, i + QUERY_BLOCK)
            scores = q[..., i:j, :] @ k[..., :j, :].mT
            later = torch.ones(j - i, j - i, dtype=torch.bool).triu_(1)
            scores[..., i:j].masked_fill_(later, -torch.inf)
            share = torch.softmax(scores, -1)
            shares.append(share)
            outs.append(share @ v[..., :j, :])
        ctx.save_for_backward(q, k, v, *shares)
        return torch.cat(outs, -2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *shares = ctx.saved_tensors
        (grad,) = grads
        length, size = q.shape[-2:]
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for share, i in zip(shares, range(0, length, QUERY_BLOCK), strict=True):
            j = min(length, i + QUERY_BLOCK)
            out = grad[..., i:j, :]
            dv[..., :j, :] += share.mT @ out
            dshare = out @ v[..., :j, :].mT
            # Gradient of softmax: p * (dp - sum(p dp)), as one kernel.
            dscores = torch._softmax_backward_data(dshare, share, -1, share.dtype)
            dq[..., i:j, :] = dscores @ k[..., :j, :]
            dk[..., :j, :] += dscores.mT @ q[..., i:j, :]
        return dq * (1 / math.sqrt(size)), dk, dv


class PooledDropout(torch.nn.Module):
    """Dropout with masks that are random slices of one large precomputed mask."""

    pools: ClassVar[dict[tuple[float, torch.dtype], Tensor]] = {}

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        key = (self.share, x.dtype)
        if key not in self.pools:
            keep = torch.rand(POOL, generator=torch.Generator().manual_seed(0)) >= self.share
            self.pools[key] = keep.to(x.dtype) / (1 - self.share)
        at = int(torch.randint(POOL - x.numel(), ()))
        return x * self.pools[key][at : at + x.numel()].view_as(x)


class TiedHeadLoss(torch.autograd.Function):
    """Mean cross-entropy of softmax(h wᵀ), in chunks of rows.

    Gradients are computed in the forward pass, while the logits of a chunk are in the cache; all
    logits at once would be 64 MB for each of six passes.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, targets: Tensor) -> Tensor:
        wide = w.to(h.dtype)
        dh, dw = torch.empty_like(h), torch.zeros_like(w)
        loss = torch.zeros(())
        for i in range(0, len(h), LOSS_ROWS):
            rows, wanted = h[i : i + LOSS_ROWS], targets[i : i + LOSS_ROWS, None]
            share = (rows @ wide.mT).float()
            loss -= share.gather(1, wanted).sum()
            total = share.logsumexp(-1, keepdim=True)
            loss += total.sum()
            share.sub_(total).exp_()
            share.scatter_add_(1, wanted, torch.full(wanted.shape, -1.0))
            narrow = share.to(h.dtype)
            dh[i : i + LOSS_ROWS] = narrow @ wide
            dw += narrow.mT @ rows
        ctx.save_for_backward(dh, dw)
        ctx.count = len(h)
        return loss / len(h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        dh, dw = ctx.saved_tensors
        scale = grads[0] / ctx.count
        return dh * scale, dw * scale, None
