"""Tables of docs/quantization.md: perplexity and divergence of quantised weights.

    python scripts/measure_quantization.py CORPUS

CORPUS is the directory of the 33 books (see training/README.md), whose last 2 % each were held out.
The second table needs no text. Takes some minutes on a CPU adapter.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.bench.measured_models import VOCABULARY
from gpt2_wgpu.models.weight_sizes import stored_bytes
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "quantization.md"
MARKED = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)
DTYPES = tuple(WEIGHT_FORMATS)  # the first is what the others are compared with
# Standard deviations of random weights: what GPT-2 was initialised with, whose predictions are all
# but uniform, and one whose predictions differ as a trained model's do.
RANGES = (0.02, 0.1)
WINDOWS, LENGTH = 4, 96  # of random ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument(
        "--characters", type=int, default=300, help="of each book's held-out text; 0: all"
    )
    args = parser.parse_args()
    sys.path.append(str(ROOT / "training"))
    from data import read_books

    most = args.characters or None
    texts = [book.held_out[:most] for book in read_books(args.corpus)]
    part = f"the first {most:,} characters of each" if most else "all of it"
    table = "\n".join([*of_text(texts, part), "", *of_random_weights()]) + "\n"
    PAGE.write_text(MARKED.sub(lambda match: match[1] + table + match[2], PAGE.read_text()))
    print(table)


def of_text(texts: list[str], part: str) -> list[str]:
    """The embedded model's table; ``part``: which of the held-out text this is."""
    nbytes = sum(len(text.encode()) for text in texts)
    lines = [
        f"The embedded model on held-out text of {len(texts)} books, {part}: {nbytes:,} bytes in "
        f"all. Adapter: {gw.default_device().info.name}.",
        "",
        "| dtype | weights on the GPU | perplexity | against float32 | bits per byte "
        "| divergence, nats | same best token |",
        "|---|---|---|---|---|---|---|",
    ]
    with gw.GPT2CausalLM.from_preset("fairytales", dtype=DTYPES[0]) as reference:
        exact = reference.perplexity(texts)

        def cells(lm: gw.GPT2CausalLM, value: float, *others: str) -> str:
            bits = math.log2(value) * tokens_of(lm, texts) / nbytes
            share = f"{100 * (value / exact - 1):+.2f} %"
            dtype = lm.backbone.dtype
            return row([dtype, size_of(lm), f"{value:.3f}", share, f"{bits:.4f}", *others])

        lines.append(cells(reference, exact, "", ""))
        for dtype in DTYPES[1:]:
            with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as lm:
                found = lm.divergence(texts, reference)
                lines.append(cells(lm, lm.perplexity(texts), *distance(found)))
    return lines


def of_random_weights() -> list[str]:
    """The table of GPT-2 124M, for each of ``RANGES``."""
    ids = random.Random(0)
    texts = [[ids.randrange(VOCABULARY) for _ in range(LENGTH)] for _ in range(WINDOWS)]
    lines = [
        f"GPT-2 124M with random weights, {WINDOWS} x {LENGTH} random tokens:",
        "",
        "| dtype | weights on the GPU"
        + "".join(f" | divergence at {stddev}, nats | same best token" for stddev in RANGES)
        + " |",
        "|---|---|---|---|---|---|",
    ]
    found: dict[str, list[str]] = {}
    for stddev in RANGES:
        with random_model(DTYPES[0], stddev) as reference:
            for dtype in DTYPES[1:]:
                with random_model(dtype, stddev) as lm:
                    cells = found.setdefault(dtype, [dtype, size_of(lm)])
                    cells += distance(lm.divergence(texts, reference))
    return lines + [row(cells) for cells in found.values()]


def random_model(dtype: str, stddev: float) -> gw.GPT2CausalLM:
    backbone = gw.GPT2Backbone(
        VOCABULARY, 12, 12, 768, 3072, dtype=dtype, initializer_range=stddev, seed=1
    )
    return gw.GPT2CausalLM(backbone)


def size_of(lm: gw.GPT2CausalLM) -> str:
    return f"{stored_bytes(lm.backbone.config, lm.backbone.dtype) / 2**20:.1f} MiB"


def distance(found: gw.Divergence) -> list[str]:
    return [f"{found.nats:.2g}", f"{100 * found.agreement:.2f} %"]


def row(cells: list[str]) -> str:
    line = f"| {' | '.join(cells)} |"
    print(line, file=sys.stderr)
    return line


def tokens_of(lm: Any, texts: list[str]) -> int:
    """Return the number of predicted tokens."""
    return sum(len(row) - 1 for row in lm.preprocessor.encode_prompts(texts))


if __name__ == "__main__":
    main()
