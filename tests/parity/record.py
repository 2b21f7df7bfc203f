"""Recorder of the references' values, which `make test` holds this package to.

    python -m tests.parity.record [NAME ...]    # all references, or keras_hub, transformers, …

Each reference runs in a process of its own. Its values are compared with the recorded ones: the
file is written anew only where they differ by more than rounding, so that a new release or another
machine leaves no change behind. Needs the environment of tests/parity/requirements.txt.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from typing import Any

from tests.parity.cases import RECORDED, recorded

NAMES = (
    "keras_hub",
    "keras_layers",
    "keras_text",
    "lm_eval",
    "ray",
    "transformer_lens",
    "transformers",
)
DIGITS = 5
ROUNDING = 5e-5


def main(arguments: list[str]) -> int:
    """Record the references of these names; returns the exit status."""
    if arguments[:1] == ["--one"]:
        record(arguments[1])
        return 0
    unknown = set(arguments) - set(NAMES)
    if unknown:
        print(f"no reference is called {sorted(unknown)}; there are {', '.join(NAMES)}")
        return 2
    for name in arguments or NAMES:
        command = [sys.executable, "-m", "tests.parity.record", "--one", name]
        status = subprocess.run(command, check=False).returncode
        if status:
            print(f"the reference {name} failed", file=sys.stderr)
            return status
    return 0


def record(name: str) -> None:
    """Write the values of one reference where they differ from the recorded ones."""
    values = plain(import_module(f"tests.parity.references.{name}").values())
    path = RECORDED / f"{name}.json"
    if path.exists() and same(recorded(name), values):
        print(f"{name} {values['version']}: as recorded")
        return
    path.write_text(json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    print(f"{name} {values['version']}: recorded, {path.stat().st_size} bytes")


def plain(value: Any) -> Any:
    """JSON's types instead of arrays, floats rounded."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def same(old: Any, new: Any) -> bool:
    """Equality of values whose floats may differ by rounding."""
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new) <= ROUNDING * max(1.0, abs(old))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    return bool(old == new)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
