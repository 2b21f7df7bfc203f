"""Compare gpt2-wgpu with its peers, natively or in a browser.

python -m benchmarks.peers native -o benchmarks/results/native-124M.json
python -m benchmarks.peers chromium --site dist --model fairytales
python -m benchmarks.peers firefox --engines gpt2-wgpu-f32,onnxruntime-web-wasm
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import engines, install

if TYPE_CHECKING:
    from benchmarks.peers.compare import Runner
    from benchmarks.peers.models import Work


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("where", choices=("native", "chromium", "firefox"))
    parser.add_argument("--engines", help="comma separated; default: all that can run here")
    parser.add_argument("--model", default="124M", choices=("124M", "fairytales"))
    parser.add_argument("-p", "--prompt-tokens", type=int, default=128)
    parser.add_argument("-n", "--new-tokens", type=int, default=128, help="at least 5")
    parser.add_argument("-b", "--batch", type=int, default=1, help="prompts at a time")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="decoding time of one run: slower engines give fewer tokens, at least 4",
    )
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--cache", type=Path, default=install.default_cache())
    parser.add_argument(
        "--site", type=Path, default=Path("dist"), help="browsers: made by make site"
    )
    parser.add_argument("--browser-path", help="default: the one of the PATH")
    parser.add_argument(
        "--chromium-flag", action="append", help="replaces the flags for SwiftShader"
    )
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.error(f"-b must be at least 1, not {args.batch}")
    if args.new_tokens < 5:
        parser.error("-n must be at least 5: the first token is timed apart")
    return args


def main(argv: list[str]) -> int:
    args = parse(argv)
    args.cache = args.cache.resolve()
    args.cache.mkdir(parents=True, exist_ok=True)
    install.install_python(args.cache, install.MAIN)
    inside = install.python_of(args.cache)
    if Path(sys.executable).absolute() != inside:  # restart in the environment of the peers
        return subprocess.run([inside, "-m", "benchmarks.peers", *argv], check=False).returncode
    return measure(args)


def measure(args: argparse.Namespace) -> int:
    from benchmarks.peers.compare import Plan, compare
    from benchmarks.peers.models import checker, prepare
    from benchmarks.peers.results import report, show

    work = prepare(args.model, args.cache, args.prompt_tokens, args.new_tokens, args.batch)
    plan = Plan(args.new_tokens, args.rounds, args.seconds, args.batch)
    with ExitStack() as stack:
        runners, versions = RUNNERS[args.where](args, work, stack)
        outcomes = compare(runners, plan, checker(work))
    found = report(outcomes, work, plan, versions)
    show(found)
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if any(outcome.equal is True for outcome in outcomes) else 1


def native(
    args: argparse.Namespace, work: Work, stack: ExitStack
) -> tuple[list[Runner], dict[str, str]]:
    """Return one process per engine."""
    import torch

    from benchmarks.peers.native.process import NativeRunner

    found = engines.chosen(engines.NATIVE, args.engines, torch.cuda.is_available(), args.batch)
    if any(engine.environment == install.WEBGPU for engine in found):
        install.install_python(args.cache, install.WEBGPU)
    runners = [NativeRunner(engine, work, args.cache, os.cpu_count() or 1) for engine in found]
    for runner in runners:
        stack.callback(runner.close)
    return list(runners), {}


def chromium(
    args: argparse.Namespace, work: Work, stack: ExitStack
) -> tuple[list[Runner], dict[str, str]]:
    """Return one page per engine, all in one Chromium."""
    from benchmarks.peers.browser.chromium import Chromium
    from benchmarks.peers.browser.pages import PageRunner

    found = engines.chosen(engines.BROWSER, args.engines, False, args.batch)
    address = stack.enter_context(_served(args, work, found))
    browser = stack.enter_context(Chromium(args.browser_path, args.chromium_flag))
    runners = [PageRunner(engine, work, browser.tab(), address) for engine in found]
    return list(runners), {"Chromium": browser.version}


def firefox(
    args: argparse.Namespace, work: Work, stack: ExitStack
) -> tuple[list[Runner], dict[str, str]]:
    """Return one Firefox per engine."""
    from benchmarks.peers.browser.firefox_tab import FirefoxTab
    from benchmarks.peers.browser.pages import PageRunner

    found = engines.chosen(engines.FIREFOX, args.engines, False, args.batch)
    address = stack.enter_context(_served(args, work, found))
    settings = [engine.options.get("preferences", {}) for engine in found]
    tabs = [FirefoxTab(args.browser_path, each, stack) for each in settings]
    runners = [
        PageRunner(engine, work, tab, address) for engine, tab in zip(found, tabs, strict=True)
    ]
    return list(runners), {"Firefox": tabs[0].version}


def _served(
    args: argparse.Namespace, work: Work, found: list[engines.Engine]
) -> AbstractContextManager[str]:
    """Return the context of the server of the engines' files, which yields the page's address."""
    from benchmarks.peers.browser.pages import served

    site = args.site.resolve()
    if any(e.file == "ours" for e in found) and not (site / "web" / "gpt2.js").is_file():
        raise SystemExit(f"{site} has no web/gpt2.js: 'make site', or say --site FOLDER")
    return served(work, install.install_npm(args.cache), site)


RUNNERS = {"native": native, "chromium": chromium, "firefox": firefox}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
