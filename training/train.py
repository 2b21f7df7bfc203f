"""Training of the fairytales GPT-2 from a folder of tales, with export as a Hugging Face model.

python train.py --corpus DIR --out MODEL --minutes 90    # limited by time
python train.py --corpus DIR --out MODEL --steps 8000    # limited by steps
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

# glibc returns large buffers to the system after each use, and the page faults of allocating them
# again cost a fourth of a step on a CPU. The setting is only read at the start of a process.
_TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4000000000:"
    "glibc.malloc.trim_threshold=8000000000:glibc.malloc.top_pad=500000000"
)
if __name__ == "__main__" and sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
    os.environ["GLIBC_TUNABLES"] = _TUNABLES
    os.execv(sys.executable, [sys.executable, *sys.argv])

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from data import Windows, mark_tales, paragraph_starts, read_books  # noqa: E402
from evaluate import bits_per_byte  # noqa: E402
from export import RUN, export  # noqa: E402
from model import GPT2, Shape, count, other_parameters  # noqa: E402
from parallel import PIECES, Member, Team  # noqa: E402
from tokenizer import end_of_text_id, train_tokenizer  # noqa: E402

COLUMNS = ["step", "minutes", "tokens", "rate", "train_loss", "held_out_bits_per_byte"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder of .txt books")
    parser.add_argument("--out", type=Path, help="export the model and its card to this folder")
    parser.add_argument("--run", type=Path, default=RUN, help="logs and checkpoints")
    parser.add_argument("--hardware", default="a CPU", help="named in the model card")
    parser.add_argument("--note", default="", help="a remark on the run, for the model card")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=90.0)
    length.add_argument("--steps", type=int, help="fixed number of steps instead of --minutes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=0.003)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--long-from", type=float, default=0.6, help="full context from here on")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, PIECES))
    parser.add_argument("--save-minutes", type=float, default=5.0)
    return parser.parse_args()


def rate(progress: float) -> float:
    """Return the trapezoid learning rate: short warm-up, plateau, long linear decay to zero."""
    return min(1.0, progress / 0.01 + 0.01, max(0.0, (1 - progress) / 0.65))


class Trainer:
    """State of a training run; `progress` goes from 0 to 1."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        torch.set_num_threads(1)
        args.run.mkdir(parents=True, exist_ok=True)
        self.books = read_books(args.corpus)
        path = args.run / "tokenizer.json"
        if args.resume and path.exists():
            self.tokenizer = Tokenizer.from_file(str(path))
        else:
            self.tokenizer = train_tokenizer((b.train for b in self.books), args.vocabulary)
            self.tokenizer.save(str(path))
        rows = [self.tokenizer.encode(mark_tales(book.train)).ids for book in self.books]
        tokens = np.array([i for row in rows for i in row], dtype=np.int64)
        eot = end_of_text_id(self.tokenizer)
        newline = self.tokenizer.encode("\n").ids[0]
        starts = paragraph_starts(tokens, newline, eot)
        self.windows = Windows(tokens, starts, eot, args.seed)
        shape = Shape(args.vocabulary, args.context, args.width, args.layers, args.heads)
        self.model = GPT2(shape, args.dropout)
        matrices = [p for p in other_parameters(self.model) if p.dim() == 2]
        vectors = [p for p in other_parameters(self.model) if p.dim() < 2]
        static = args.steps is not None
        self.team = Team(args.processes, self.model, args.batch_tokens, static, args.seed)
        self.member = Member(self.team, 0, self.model, args.weight_decay)
        groups = [
            {"params": matrices, "weight_decay": args.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=args.adam_rate, betas=(0.9, 0.98), fused=True)
        self.step, self.tokens, self.elapsed = 0, 0, 0.0
        print(
            f"{len(tokens)} training tokens, {len(starts)} paragraphs, "
            f"{int((tokens == eot).sum())} tales, {count(self.model)} parameters",
            flush=True,
        )
        if args.resume:
            self.load()
        self.team.start(shape, args.dropout, args.weight_decay)

    def progress(self) -> float:
        """Return the completed fraction of the run, by steps or by time."""
        if self.args.steps:
            return self.step / self.args.steps
        return self.elapsed / (60 * self.args.minutes)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "momentum": self.team.momentum,
            "adam": self.adam.state_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "elapsed": self.elapsed,
            "windows": (
                self.windows.rng.bit_generator.state,
                self.windows.queue.tolist(),
                self.windows.length,
            ),
            "shape": vars(self.model.shape),
            "args": {k: v for k, v in vars(self.args).items() if not isinstance(v, Path)},
        }

    def save(self) -> None:
        """Write a checkpoint atomically, so that a crash leaves the previous one."""
        path = self.args.run / "checkpoint.pt"
        torch.save(self.state(), path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self) -> None:
        state = torch.load(self.args.run / "checkpoint.pt", weights_only=False)
        self.model.load_state_dict(state["model"])
        self.team.momentum.copy_(state["momentum"])
        self.adam.load_state_dict(state["adam"])
        self.step, self.tokens, self.elapsed = state["step"], state["tokens"], state["elapsed"]
        generator, queue, self.windows.length = state["windows"]
        self.windows.rng.bit_generator.state = generator
        self.windows.queue = np.array(queue, dtype=np.int64)

    def loss_of_each(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(x, y, each=True)

    def evaluate(self) -> float:
        self.model.eval()
        torch.set_num_threads(self.args.processes)
        result = bits_per_byte(self.loss_of_each, self.tokenizer, self.books, self.args.context)
        torch.set_num_threads(1)
        self.model.train()
        return result

    def train_step(self) -> float:
        progress = self.progress()
        factor = rate(progress)
        self.team.rate.value = self.args.muon_rate * factor
        for group in self.adam.param_groups:
            group["lr"] = self.args.adam_rate * factor
        # Short windows first: they are cheaper, and most of the structure is local.
        length = self.args.context if progress >= self.args.long_from else self.args.context // 2
        x, y = self.windows.batch(self.args.batch_tokens // length, length)
        self.team.batch[0] = torch.from_numpy(x).flatten()
        self.team.batch[1] = torch.from_numpy(y).flatten()
        self.team.length.value, self.team.step.value, self.team.taken.value = length, self.step, 0
        self.member.step(self.adam)
        self.step += 1
        self.tokens += x.size
        return float(self.team.losses.sum())

    def run(self) -> None:
        log_path = self.args.run / "log.csv"
        fresh = not (self.args.resume and log_path.exists())
        with log_path.open("w" if fresh else "a", newline="") as file:
            log = csv.writer(file)
            if fresh:
                log.writerow(COLUMNS)
            losses: list[float] = []
            began, saved = time.monotonic() - self.elapsed, self.elapsed
            while self.progress() < 1:
                losses.append(self.train_step())
                self.elapsed = time.monotonic() - began
                if not math.isfinite(losses[-1]):
                    raise SystemExit("the loss is no longer a number")
                due = self.elapsed - saved >= 60 * self.args.save_minutes
                last = self.progress() >= 1
                if self.step % 100 and not due and not last:
                    continue
                bits = ""
                if due or last:
                    bits, saved = f"{self.evaluate():.4f}", self.elapsed
                    self.save()
                row = [
                    self.step,
                    f"{self.elapsed / 60:.2f}",
                    self.tokens,
                    f"{rate(self.progress()):.4f}",
                    f"{np.mean(losses):.4f}",
                    bits,
                ]
                log.writerow(row)
                file.flush()
                print(*row, flush=True)
                losses.clear()


def main() -> None:
    args = arguments()
    Trainer(args).run()
    if args.out:
        from card import write_card  # imports packages that training does not need

        export(args.run, args.out)
        print(write_card(args.run, args.corpus, args.out, args.hardware, args.note))


if __name__ == "__main__":
    main()
