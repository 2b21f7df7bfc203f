"""Loss plot from the log of a run."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt


def plot(log: Path, out: Path) -> None:
    """Plot training loss (left axis) and held-out bits per byte (right axis) over tokens."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # A resumed run logs the steps since its checkpoint again: the later rows count.
    rows = [
        r for i, r in enumerate(rows) if all(int(r["step"]) < int(n["step"]) for n in rows[i + 1 :])
    ]
    figure, left = plt.subplots(figsize=(7, 4), dpi=100)
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    left.plot(tokens, [float(row["train_loss"]) for row in rows], color="tab:blue", lw=1)
    left.set_xlabel("training tokens (millions)")
    left.set_ylabel("training loss with dropout (nats per token)", color="tab:blue")
    left.set_ylim(top=6)
    left.grid(alpha=0.3)
    measured = [
        (int(r["tokens"]) / 1e6, float(r["held_out_bits_per_byte"]))
        for r in rows
        if r["held_out_bits_per_byte"]
    ]
    right = left.twinx()
    right.plot(*zip(*measured, strict=True), color="tab:red", marker="o", ms=3, lw=1)
    right.set_ylabel("held-out text (bits per byte)", color="tab:red")
    figure.tight_layout()
    figure.savefig(out)
    plt.close(figure)
