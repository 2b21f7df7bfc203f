"""The notebooks of `examples/`: their code, and lines that they print."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples"
# Runs `cells` as Jupyter does; `printed` is their output.
PROGRAM = """
import ast, contextlib, io

names = {}
with contextlib.redirect_stdout(io.StringIO()) as printed:
    for cell in cells:
        running = eval(compile(cell, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if running is not None:
            await running
"""
# Patterns: the last digits depend on the adapter.
PRINTED = {
    "induction_heads": (
        r"layer 6, head 2: induction score 0\.1[78]",
        r"loss of the repetition: 12\.2., without these heads: 13\.9.",
    ),
    "logit_lens": (r"final prediction: ' son'", r"5_pre +rank +\d, divergence 2\.1"),
    "patching": (
        r"clean 0\.3\d, corrupted -1\.0\d",
        r"' woman' +100 +100 +10[01] +100 +9\d +-1\d",
        r"layer +4 +10[678] +-?0 +-[123] +[012]\n",
    ),
    "steering": (
        r"strength -1\.5: log p of the sea minus that of the forest -4\.[45]",
        r"strength 1\.5: log p of the sea minus that of the forest 4\.7",
    ),
}


def code_cells(name: str) -> list[str]:
    """Return the sources of the code cells of a notebook."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
