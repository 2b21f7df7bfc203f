"""Writes the table of docs/quantization.md: what rounding costs on text held out of the training.

    python docs/measure_quantization.py CORPUS

CORPUS is the directory of the 33 books (training/README.md tells where they come from), whose last
2 % each were held out. Takes some minutes on a CPU adapter.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.models.layouts import stored_bytes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "quantization.md"
MARKED = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument(
        "--characters", type=int, default=2000, help="of each book's held-out text; 0: all"
    )
    args = parser.parse_args()
    sys.path.append(str(ROOT / "training"))
    from data import read_books

    most = args.characters or None
    texts = [book.held_out[:most] for book in read_books(args.corpus)]
    part = f"the first {most:,} characters of each" if most else "all of it"
    table = "\n".join(rows(texts, part)) + "\n"
    PAGE.write_text(MARKED.sub(lambda match: match[1] + table + match[2], PAGE.read_text()))
    print(table)


def rows(texts: list[str], part: str) -> list[str]:
    """The table's lines; ``part``: which of the held-out text this is."""
    nbytes = sum(len(text.encode()) for text in texts)
    lines = [
        f"Held-out text of {len(texts)} books, {part}: {nbytes:,} bytes in all. "
        f"Adapter: {gw.default_device().info.name}.",
        "",
        "| dtype | weights on the GPU | perplexity | against float32 | bits per byte |",
        "|---|---|---|---|---|",
    ]
    exact = 0.0
    for dtype in ("float32", "float16", "q8", "q4"):
        with gw.GPT2CausalLM.from_preset("fairytales", dtype=dtype) as lm:
            value = lm.perplexity(texts)
            exact = exact or value
            size = stored_bytes(lm.backbone.config, dtype) / 2**20
            bits = math.log2(value) * tokens_of(lm, texts) / nbytes
        share = f"{100 * (value / exact - 1):+.2f} %"
        lines.append(f"| {dtype} | {size:.1f} MiB | {value:.3f} | {share} | {bits:.4f} |")
        print(lines[-1], file=sys.stderr)
    return lines


def tokens_of(lm: Any, texts: list[str]) -> int:
    """How many tokens are predicted."""
    return sum(len(row) - 1 for row in lm.preprocessor.encode_prompts(texts))


if __name__ == "__main__":
    main()
