"""Bits per byte of the held-out tails."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from data import Book
from tokenizer import end_of_text_id

IGNORED = -100  # target ignored by the loss
LossOfEach = Callable[[Tensor, Tensor], Tensor]


def windows(ids: list[int], context: int, stride: int) -> list[tuple[list[int], list[int]]]:
    """Split one text into overlapping windows in which each token is a target exactly once.

    The first token is never a target. Windows after the first repeat `context - stride` tokens,
    the minimal context of their targets.
    """
    inputs, targets = ids[:-1], ids[1:]
    result, done = [], 0
    while done < len(inputs):
        end = context if done == 0 else done + stride
        end = min(end, len(inputs))
        start = max(0, end - context)
        labels = [IGNORED] * (done - start) + targets[done:end]
        result.append((inputs[start:end], labels))
        done = end
    return result


@torch.no_grad()
def bits_per_byte(
    loss_of_each: LossOfEach,
    tokenizer: Tokenizer,
    books: list[Book],
    context: int,
    rows: int = 8,
) -> float:
    """Return the total bits of all held-out tokens divided by the held-out UTF-8 bytes.

    Each tail is a separate text after <|endoftext|>. The window advances by half of the context.
    """
    eot = end_of_text_id(tokenizer)
    pieces = []
    for book in books:
        pieces += windows([eot, *tokenizer.encode(book.held_out).ids], context, context // 2)
    pieces.sort(key=lambda piece: len(piece[0]))  # little padding
    nats = 0.0
    for i in range(0, len(pieces), rows):
        group = pieces[i : i + rows]
        longest = max(len(inputs) for inputs, _ in group)
        x = np.full((len(group), longest), eot)
        y = np.full((len(group), longest), IGNORED)
        for row, (inputs, labels) in enumerate(group):
            x[row, : len(inputs)] = inputs
            y[row, : len(labels)] = labels
        nats += float(loss_of_each(torch.from_numpy(x), torch.from_numpy(y)).double().sum())
    return nats / math.log(2) / sum(len(book.held_out.encode("utf-8")) for book in books)
