"""Picture docs/terminal.svg of the output of a real run of the command.

python scripts/draw_terminal.py
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

COMMAND = ["generate", "Once upon a time", "-n", "110", "--seed", "3"]
COLUMNS, LINE, LEFT = 92, 20, 18


def draw(lines: list[tuple[str, str]]) -> str:
    """(text, colour) lines as a terminal window in SVG."""
    height = LINE * len(lines) + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {height}" font-size="13.5" '
        "font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\">",
        f'<rect width="800" height="{height}" rx="8" fill="#1e1e2e"/>',
        *[
            f'<circle cx="{22 + 20 * i}" cy="20" r="6" fill="{colour}"/>'
            for i, colour in enumerate(("#f38ba8", "#f9e2af", "#a6e3a1"))
        ],
    ]
    for number, (text, colour) in enumerate(lines):
        y = 54 + LINE * number
        parts.append(f'<text x="{LEFT}" y="{y}" fill="{colour}" xml:space="preserve">')
        parts.append(f"{escape(text)}</text>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gpt2_wgpu.cli", *COMMAND],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = " ".join(f'"{word}"' if " " in word else word for word in COMMAND)
    lines = [(f"$ gpt2-wgpu {shown}", "#89b4fa")]
    for paragraph in run.stdout.rstrip("\n").split("\n"):
        lines += [(line, "#cdd6f4") for line in textwrap.wrap(paragraph, COLUMNS) or [""]]
    for message in run.stderr.rstrip("\n").split("\n"):
        lines += [(line, "#7f849c") for line in textwrap.wrap(message, COLUMNS)]
    output = Path(__file__).parents[1] / "docs" / "terminal.svg"
    output.write_text(draw(lines))
    print(output)


if __name__ == "__main__":
    main()
