"""Part 8: PyTorch on the same GPU, where a Python with it can be found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Context, Section
from benchmarks.peers import install
from gpt2_wgpu.bench.measured_models import HEAD, VOCABULARY

WORKER = Path(__file__).with_name("torch_worker.py")


def measure(context: Context, section: Section) -> None:
    """Run the worker with the first Python that has PyTorch."""
    tried = []
    for python in _pythons(context):
        tried.append(python)
        if _has_torch(python):
            section["python"] = python
            _run(context, section, python)
            return
    section["error"] = f"no PyTorch in {', '.join(tried)}: name a Python with --torch-python"


def _pythons(context: Context) -> Iterator[str]:
    if context.torch_python:
        yield context.torch_python
        return
    yield sys.executable
    for name in ("python3", "python"):
        if (found := shutil.which(name)) and Path(found) != Path(sys.executable):
            yield found
    if (peers := install.python_of(install.default_cache())).exists():
        yield str(peers)


def _has_torch(python: str) -> bool:
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    try:
        return (
            subprocess.run([python, "-c", probe], capture_output=True, timeout=30).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(context: Context, section: Section, python: str) -> None:
    plan = context.plan
    long = max(plan.prefill)
    job = {
        "layers": plan.small.layers,
        "width": plan.small.width,
        "heads": plan.small.width // HEAD,
        "vocabulary": VOCABULARY,
        "capacity": 1024,
        "prompt_tokens": plan.prompt_tokens,
        "new_tokens": plan.new_tokens,
        "prefill_tokens": long,
        "repeats": plan.repeats,
        "transformers": plan.transformers,
        "software": context.device.info.is_software,
    }
    section["prefill_tokens"] = long
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    output, error = "", ""
    with subprocess.Popen(
        [python, str(WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            output, error = process.communicate(json.dumps(job), timeout=max(1.0, context.left))
        except subprocess.TimeoutExpired:
            process.kill()
            output, error = process.communicate()
            section["cut"] = f"after {plan.budgets['torch']} s; what was measured by then is here"
    found: dict[str, Any] = {}
    for line in output.splitlines():
        with suppress(ValueError):
            found = json.loads(line)
    section |= found
    if not found and "cut" not in section:
        section["error"] = f"PyTorch failed: {error.strip()[-300:]}"
    elif found and found.get("device") is None:
        section["error"] = f"PyTorch {found['torch']} of {python} finds no GPU"
