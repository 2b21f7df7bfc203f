"""The plugin of `llm` by its entry point in pyproject.toml, installed or not."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def load() -> None:
    """Loads what `llm` finds, and this package's plugin if it was installed before it had one."""
    from llm.plugins import load_plugins, pm

    load_plugins()
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    for name, module in project["entry-points"]["llm"].items():
        if not pm.has_plugin(name):
            pm.register(import_module(module), name)
