"""Bar charts of benchmarks/results/*.json, one SVG per file, for light and dark backgrounds.

    python benchmarks/draw.py [FILE.json ...] [-o FOLDER]

The input is the output of `gpt2-wgpu bench -o json`, or a comparison of engines with the same keys
(docs/benchmarks.md). A bar is the median of the runs; the line at its end is the range. A row whose
outputs differ has the reason instead of a bar.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

RESULTS = Path(__file__).parent / "results"
OURS = "gpt2-wgpu"
WIDTH, LABELS, VALUES, LINE, GAP = 860, 300, 120, 26, 34
# The background is transparent; colours follow prefers-color-scheme.
STYLE = """\
text { font: 13px sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; }
.faint { fill: #59636e; }
.ours { fill: #0969da; }
.theirs { fill: #8c959f; }
.range { stroke: #1f2328; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .faint { fill: #9198a1; }
  .ours { fill: #4493f8; }
  .theirs { fill: #656c76; }
  .range { stroke: #f0f6fc; }
}"""

Row = dict[str, Any]
Values = Callable[[Row], Sequence[float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="default: benchmarks/results/*.json")
    parser.add_argument("-o", "--output", type=Path, help="folder (default: beside each file)")
    args = parser.parse_args()
    for path in args.files or sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "rows" not in result:
            print(f"{path}: no rows, so nothing to draw", file=sys.stderr)
            continue
        chart = (args.output or path.parent) / f"{path.stem}.svg"
        chart.write_text(draw(result), encoding="utf-8")
        print(chart)
    return 0


def draw(result: dict[str, Any]) -> str:
    """Return the SVG of one file: decoding above, prefill below."""
    work = result["work"]
    prompt, new = work["prompt_tokens"], work["new_tokens"]

    def prefill(row: Row) -> list[float]:
        return [batch_of(row, work) * prompt / seconds for seconds in row["prefill_seconds"]]

    parts = [*heading(result)]
    top = 66
    panels: tuple[tuple[str, Values], ...] = (
        (f"decoding {new} tokens, tokens/s", lambda row: row["decode_tokens_per_second"]),
        (f"prefill of {prompt} tokens, tokens/s", prefill),
    )
    for title, values in panels:
        panel, top = bars(title, result["rows"], values, top)
        parts += panel
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">\n'
        f"<style>\n{STYLE}\n</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def heading(result: dict[str, Any]) -> list[str]:
    load = result.get("load", {}).get("foreign_cpu")
    facts = [
        result["hardware"],
        *([result["driver"]] if result["driver"] else []),
        *(["SOFTWARE ADAPTER"] if result["software_adapter"] else []),
        result["date"][:10],
        *([] if load is None else [f"others kept {load:.1f} cores busy"]),
    ]
    return [
        text(0, 18, f"{result['work']['model']}", "title"),
        text(0, 40, " · ".join(facts), "faint"),
    ]


def bars(title: str, rows: Sequence[Row], values: Values, top: int) -> tuple[list[str], int]:
    """Return a panel and the top of the next one; rows without a figure come last."""
    right = [row for row in rows if row["equal_outputs"] is True and values(row)]
    right.sort(key=lambda row: -statistics.median(values(row)))
    wrong = [row for row in rows if row["equal_outputs"] is not True]
    most = max((max(values(row)) for row in right), default=1.0)
    parts, y = [text(0, top + 14, title, "title")], top + 26
    for row in right:
        parts += bar(row, values(row), (WIDTH - LABELS - VALUES) / most, y)
        y += LINE
    for row in wrong:
        parts.append(text(LABELS - 10, y + 15, label(row), "", "end"))
        parts.append(text(LABELS, y + 15, f"no figure: {row['equal_outputs']}"[:80], "faint"))
        y += LINE
    return parts, y + GAP - LINE // 2


def bar(row: Row, values: Sequence[float], scale: float, y: float) -> list[str]:
    middle, low, high = statistics.median(values), min(values), max(values)
    kind = "ours" if row["engine"] == OURS else "theirs"
    width, end = middle * scale, LABELS + high * scale
    figure = f"{middle:.3g}" if middle < 1000 else f"{middle:,.0f}"
    tip = f"{label(row)}: {figure}. {row['note']}".strip()
    return [
        f"<g><title>{escape(tip)}</title>",
        text(LABELS - 10, y + 15, label(row), "", "end"),
        f'<rect class="{kind}" x="{LABELS}" y="{y + 2}" width="{width:.1f}" height="18" rx="2"/>',
        f'<path class="range" d="M{LABELS + low * scale:.1f} {y + 11}H{end:.1f}"/>',
        text(end + 8, y + 15, figure),
        "</g>",
    ]


def label(row: Row) -> str:
    batch = f" x {row['batch']}" if row.get("batch", 1) != 1 else ""
    return f"{row['engine']}, {row['backend']}, {row['dtype']}{batch}"


def batch_of(row: Row, work: dict[str, Any]) -> int:
    batch: int = row.get("batch", work.get("batch", 1))
    return batch


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{style} text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    sys.exit(main())
