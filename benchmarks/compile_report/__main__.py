"""Compile every kernel variant of text generation for GPUs that need not be there.

python -m benchmarks.compile_report             # compiles what has changed, renews the report
python -m benchmarks.compile_report --all       # everything: after an update of Mesa or Tint
python -m benchmarks.compile_report --check     # compiles nothing: is the report up to date?
python -m benchmarks.compile_report --isa DIR   # machine code of what has changed, too
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compile_report import compilers, report
from benchmarks.compile_report.variants import Variant, variants

AT_ONCE = 12  # variants between two lines of progress


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=report.COMMAND, description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--all", action="store_true", help="compile what has not changed, too")
    parser.add_argument("--check", action="store_true", help="only compare with the report")
    parser.add_argument("--isa", type=Path, metavar="DIR", help="write RADV's output into DIR")
    parser.add_argument("--only", metavar="TEXT", help="show kernels whose label has TEXT; no file")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse(argv)
    found = variants()
    known = report.load()
    missing, unused = report.outdated(known, found)
    if args.check:
        for one in missing:
            print(f"not in the report: {one.label}")
        for label in unused:
            print(f"in the report, but not used: {label}")
        return 1 if missing or unused else 0
    if args.only:
        missing = [one for one in found if args.only in one.label]
    elif args.all:
        missing = found
    try:
        compilers.check_installed()
        rows = compile_all(missing, args.isa)
    except compilers.CompilerError as error:
        print(f"compile_report: {error}", file=sys.stderr)
        return 1
    if args.only:
        new = {**known, "families": compilers.FAMILIES, "rows": rows}
        print(report.as_markdown(new).partition("\n\n|")[2])
        return 0
    compiled = {row["kernel"] for row in rows}
    uses = {one.label: one.uses[:2] for one in found}
    kept = [
        {**row, "uses": uses[row["kernel"]]}  # which may have changed without the kernel
        for row in known["rows"]
        if row["kernel"] in uses and row["kernel"] not in compiled
    ]
    new = {
        "format": report.FORMAT,
        "mesa": compilers.mesa_version(),
        "families": compilers.FAMILIES,
        "rows": sorted(rows + kept, key=lambda row: str(row["kernel"])),
    }
    report.write(new)
    wrong = report.defects(new)
    for line in wrong:
        print(line)
    print(f"{len(rows)} compiled, {len(kept)} kept, {len(wrong)} defects: {report.MARKDOWN}")
    return 1 if wrong else 0


def compile_all(wanted: Sequence[Variant], isa: Path | None) -> list[report.Report]:
    """Return a row for each variant."""
    rows = []
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        print(f"compiling {first + 1} to {first + len(some)} of {len(wanted)}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            shaders = compilers.to_spirv(some, Path(folder))
            texts = {name: compilers.compiled(shaders, name) for name in compilers.FAMILIES}
        for place, (variant, shader) in enumerate(zip(some, shaders, strict=True)):
            each = {name: found[place] for name, found in texts.items()}
            figures = {name: compilers.figures_of(text) for name, text in each.items()}
            rows.append(report.row_of(variant, shader["threads"], figures))
            for name, text in each.items() if isa else ():
                assert isa is not None
                isa.mkdir(parents=True, exist_ok=True)
                (isa / f"{name}-{variant.hash}.txt").write_text(f"{variant.label}\n{text}")
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
