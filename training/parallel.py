"""Data parallelism over single-threaded processes, with all tensors in shared memory.

Threads within operations synchronise a few hundred times per step, and all wait if another program
uses one core. Processes synchronise three times per step, and faster ones take more pieces of the
step, so a busy machine costs only the CPU time that others use.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from model import GPT2, Shape
from muon import Muon

PIECES = 4  # pieces of a batch, assigned one by one
TIMEOUT = 900.0  # seconds after which a process assumes that the others are dead


class Team:
    """Shared state of the processes. Rank 0 is the main process."""

    def __init__(self, size: int, model: GPT2, batch_tokens: int, static: bool, seed: int) -> None:
        self.size, self.static, self.seed = size, static, seed
        context = mp.get_context("spawn")
        numbers = sum(p.numel() for p in model.parameters())
        self.weights = torch.zeros(numbers).share_memory_()
        self.momentum = torch.zeros(numbers).share_memory_()
        self.grads = torch.zeros(size, numbers).share_memory_()
        self.losses = torch.zeros(size).share_memory_()
        self.batch = torch.zeros(2, batch_tokens, dtype=torch.int64).share_memory_()
        self.length = context.Value("q", 0)  # tokens of a window
        self.rate = context.Value("d", 0.0)
        self.step = context.Value("q", 0)
        self.taken = context.Value("q", 0)  # pieces of this step that are assigned
        self.barrier = context.Barrier(size)

    def start(self, shape: Shape, dropout: float, weight_decay: float) -> None:
        """Start the other processes."""
        for rank in range(1, self.size):
            process = mp.get_context("spawn").Process(
                target=_work, args=(self, rank, shape, dropout, weight_decay), daemon=True
            )
            process.start()


class Member:
    """One process, with its share of the pieces and of the matrices."""

    def __init__(self, team: Team, rank: int, model: GPT2, weight_decay: float) -> None:
        self.team, self.rank, self.model = team, rank, model
        self.grad = team.grads[rank]
        self.places: dict[nn.Parameter, slice] = {}
        start = 0
        for p in model.parameters():
            place = slice(start, start + p.numel())
            if rank == 0:
                team.weights[place] = p.data.flatten()
            p.data = team.weights[place].view_as(p)
            p.grad = self.grad[place].view_as(p)
            self.places[p] = place
            start = place.stop
        blocks = model.blocks[rank :: team.size]
        self.matrices = [p for block in blocks for p in block.parameters() if p.dim() == 2]
        self.muon = Muon(self.matrices, lr=0.0, weight_decay=weight_decay)
        for p in self.matrices:
            self.muon.state[p]["buffer"] = team.momentum[self.places[p]].view_as(p)

    def pieces(self) -> Iterator[int]:
        """Yield the pieces of this step for this process."""
        if self.team.static:  # for reproducible runs
            yield from range(self.rank, PIECES, self.team.size)
            return
        while True:
            with self.team.taken.get_lock():
                piece = self.team.taken.value
                self.team.taken.value += 1
            if piece >= PIECES:
                return
            yield piece

    def collect(self, parameters: list[nn.Parameter]) -> None:
        """Add the other processes' gradients of these parameters to this one's."""
        for p in parameters:
            place = self.places[p]
            for rank in range(self.team.size):
                if rank != self.rank:
                    self.grad[place] += self.team.grads[rank, place]

    def step(self, others: torch.optim.Optimizer | None = None) -> None:
        """Run one training step; the main process also trains the `others`."""
        team = self.team
        team.barrier.wait(TIMEOUT)
        self.grad.zero_()
        loss = 0.0
        x, y = team.batch.view(2, PIECES, -1, team.length.value)
        for piece in self.pieces():
            torch.manual_seed((team.seed * 1_000_003 + team.step.value) * PIECES + piece)
            with torch.autocast("cpu", torch.bfloat16):
                part: Tensor = self.model(x[piece], y[piece]) / PIECES
            part.backward()
            loss += float(part.detach())
        team.losses[self.rank] = loss
        team.barrier.wait(TIMEOUT)
        self.collect(self.matrices)
        self.muon.param_groups[0]["lr"] = team.rate.value
        self.muon.step()
        if others is not None:
            rest = [p for group in others.param_groups for p in group["params"]]
            self.collect(rest)
            nn.utils.clip_grad_norm_(rest, 1.0)  # Muon is invariant to the scale
            others.step()
        team.barrier.wait(TIMEOUT)


def _work(team: Team, rank: int, shape: Shape, dropout: float, weight_decay: float) -> None:
    torch.set_num_threads(1)
    model = GPT2(shape, dropout)
    member = Member(team, rank, model, weight_decay)
    while True:
        member.step()
