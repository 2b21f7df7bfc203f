"""GPT-2, small enough to read: pre-norm blocks, learned positions, tied embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention import CausalAttention, PooledDropout, TiedHeadLoss


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int = 4096
    context: int = 512
    width: int = 256
    layers: int = 8
    heads: int = 4


class Block(nn.Module):
    """Attention and MLP on residual branches, with dropout at the ends of the branches only."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.attn_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.mlp_proj = nn.Linear(4 * width, width)
        self.drop = PooledDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        qkv = self.c_attn(self.ln_1(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = CausalAttention.apply(q, k, v)
        mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        x = x + self.drop(self.attn_proj(mixed))
        hidden = F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh")
        return x + self.drop(self.mlp_proj(hidden))


class GPT2(nn.Module):
    """GPT-2; `forward` returns the mean loss of the targets, or with `each` the loss of each."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.wte = nn.Embedding(shape.vocabulary, shape.width)
        self.wpe = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.width)
        self.drop = PooledDropout(dropout)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                # Small initial weights at the ends of branches keep the residual stream bounded.
                scale = 1 / math.sqrt(2 * shape.layers) if "_proj" in name else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(self, tokens: Tensor, targets: Tensor, each: bool = False) -> Tensor:
        x = self.drop(self.wte(tokens) + self.wpe.weight[: tokens.shape[1]])
        for block in self.blocks:
            x = block(x)
        x = self.ln_f(x)
        if self.training and not each:
            if torch.is_autocast_enabled("cpu"):
                x = x.to(torch.get_autocast_dtype("cpu"))
            return TiedHeadLoss.apply(x.flatten(0, 1), self.wte.weight, targets.flatten())
        logits = F.linear(x, self.wte.weight).flatten(0, 1).float()
        return F.cross_entropy(logits, targets.flatten(), reduction="none" if each else "mean")


def hidden_matrices(model: GPT2) -> list[nn.Parameter]:
    """Return the matrices that Muon trains: those of the blocks, not embeddings and head."""
    return [p for p in model.blocks.parameters() if p.dim() == 2]


def other_parameters(model: GPT2) -> list[nn.Parameter]:
    """Return all other parameters, for AdamW."""
    hidden = {id(p) for p in hidden_matrices(model)}
    return [p for p in model.parameters() if id(p) not in hidden]


def count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())
