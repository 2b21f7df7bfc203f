"""Writes the tables of the package into the files of the site: `python scripts/generate_web.py`.

A browser shows the page before Python is loaded, so index.html, web/gpt2.d.ts and web/sources.js
hold copies of what gpt2_wgpu/sampling_parameters.py, weight_formats.py and weights/presets.py say.
Each copy is between a line with `begin: NAME` and one with `end: NAME`; the rest of a file stays.
With `--check` nothing is written: the exit status is 1 if a copy is not current.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

from gpt2_wgpu.sampling_parameters import PARAMETERS, Field, Parameter
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from gpt2_wgpu.weights.presets import HUB_PRESETS

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str]) -> int:
    outdated = [path for path, text in contents().items() if path.read_text("utf-8") != text]
    for path in outdated:
        if argv != ["--check"]:
            path.write_text(contents()[path], "utf-8")
        print(f"generate_web: {path.relative_to(ROOT)} was not current", file=sys.stderr)
    return int(argv == ["--check"] and bool(outdated))


def contents() -> dict[Path, str]:
    """Each file, and its text with current tables."""
    tables = {
        "index.html": {"weight formats": format_options(), "sampling parameters": form_fields()},
        "web/gpt2.d.ts": {"weight formats": dtype_type(), "sampling parameters": settings_type()},
        "web/sources.js": {"presets": preset_entries()},
    }
    return {
        ROOT / name: with_tables((ROOT / name).read_text("utf-8"), of_file)
        for name, of_file in tables.items()
    }


def with_tables(text: str, tables: dict[str, list[str]]) -> str:
    """`text` with each table between its marks, indented like them."""
    for name, lines in tables.items():
        begin = rf"(?P<begin>^(?P<indent> *)[^\n]*\bbegin: {name}\b[^\n]*\n)"
        end = rf"(?P<end>^[^\n]*\bend: {name}\b)"
        pattern = re.compile(f"{begin}.*?{end}", re.DOTALL | re.MULTILINE)
        (found,) = pattern.finditer(text)
        table = "".join(f"{found['indent']}{line}\n" for line in lines)
        text = text[: found.start()] + found["begin"] + table + text[found.start("end") :]
    return text


def format_options() -> list[str]:
    return [f'<option value="{dtype}">{dtype}</option>' for dtype in WEIGHT_FORMATS]


def dtype_type() -> list[str]:
    return ["export type Dtype = " + " | ".join(f'"{dtype}"' for dtype in WEIGHT_FORMATS) + ";"]


def form_fields() -> list[str]:
    """The number, the slider and the note of each parameter that the page offers."""
    return [line for each in PARAMETERS if each.field for line in form_field(each, each.field)]


def form_field(parameter: Parameter, field: Field) -> Iterator[str]:
    name, default = parameter.javascript, f"{parameter.default:g}"
    label, note = escape(field.label, quote=False), escape(field.note, quote=False)
    step = "1" if parameter.range.whole else "any"
    yield '<div class="setting">'
    yield f'  <label for="{name}">{label}</label>'
    low, high = (f"{bound:g}" for bound in field.number)
    bounds = f'min="{low}" max="{high}" step="{step}" value="{default}"'
    yield f'  <input id="{name}" type="number" {bounds} required>'
    low, high, step = (f"{bound:g}" for bound in field.slider)
    bounds = f'min="{low}" max="{high}" step="{step}" value="{default}"'
    yield f'  <input type="range" data-for="{name}" {bounds} aria-label="{label}, slider">'
    yield f"  <small>default <data>{default}</data>; {note}</small>"
    yield "</div>"


def settings_type() -> list[str]:
    """The properties of `Settings`."""
    lines = []
    for each in PARAMETERS:
        default = each.described_default("at temperature 0")
        lines += documentation(f"{each.help[0].upper()}{each.help[1:]}. Default: {default}.")
        lines.append(f"{each.javascript}?: number{'' if each.default is not None else ' | null'};")
    return lines


def documentation(text: str) -> list[str]:
    """A JSDoc comment, on one line if it fits."""
    if len(text) < 90:
        return [f"/** {text} */"]
    return ["/**", *(f" * {line}" for line in textwrap.wrap(text, 95)), " */"]


def preset_entries() -> list[str]:
    keys = {name: name if name.isidentifier() else f'"{name}"' for name in HUB_PRESETS}
    return [f'{keys[name]}: "{hub_id}",' for name, (hub_id, _) in HUB_PRESETS.items()]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
