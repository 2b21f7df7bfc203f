"""Measure this machine's GPU in eight minutes: what is right, how fast, and does it suffice?

python -m benchmarks.gpu                         # or: make gpu
python -m benchmarks.gpu --wheels wheels         # no network, no pip: wheels beside the checkout
python -m benchmarks.gpu --adapter 4090 --torch-python ~/venv/bin/python
python -m benchmarks.gpu --browser chrome --browser firefox --site dist
python -m benchmarks.gpu --software --plan tiny  # llvmpipe: a trial of the program
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu import wheels


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=(__doc__ or "").splitlines()[0],
        epilog="exit status: 0 measured, 1 wrong results (no speed is shown), 2 no GPU",
    )
    parser.add_argument("--adapter", help="index, or part of its name (default: wgpu's choice)")
    parser.add_argument("--software", action="store_true", help="accept a software adapter")
    text = "measure although tests of kernels fail; each text is checked all the same"
    parser.add_argument("--keep-going", action="store_true", help=text)
    parser.add_argument("--plan", default="full", choices=("full", "tiny"))
    parser.add_argument("--parts", help="comma separated (default: all); correctness always runs")
    parser.add_argument("--torch-python", help="a Python that has PyTorch with CUDA or MPS")
    text = "measure decoding in this browser, too (name or path; may be repeated)"
    parser.add_argument("--browser", action="append", default=[], metavar="PROGRAM", help=text)
    text = "of --browser: the built site (default: dist, of make site)"
    parser.add_argument("--site", type=Path, default=Path("dist"), metavar="FOLDER", help=text)
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels to import from")
    parser.add_argument("-o", "--output", type=Path, help="folder (default: benchmarks/results)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse(argv)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if args.wheels is not None:
            try:
                names = wheels.unpack(args.wheels, Path(folder))
            except FileNotFoundError as error:
                print(f"gpu: {error}", file=sys.stderr)
                return 2
            print(f"gpu: using {', '.join(names)}", file=sys.stderr)
            sys.path.insert(0, folder)
        from benchmarks.gpu.measuring import run  # needs wgpu

        return run(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
