"""The command `gpt2-wgpu doctor`: what a bug report needs to say about a machine."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

from gpt2_wgpu.cli import device_report
from gpt2_wgpu.cli.options import Parser, add_adapter
from gpt2_wgpu.cli.terminal import Terminal
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.weights.local_models import local_models

# Optional and indirect packages that change behaviour; `device_report` has the required ones.
_PACKAGES = ("huggingface_hub", "prompt_toolkit", "tqdm", "h5py", "llguidance", "starlette", "ray")
# Variables that change behaviour and hold no secrets.
_VARIABLES = (
    "DRI_PRIME",
    "GPT2_WGPU_DEBUG",
    "GPT2_WGPU_MODEL",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "LANG",
    "MESA_VK_DEVICE_SELECT",
    "NODEVICE_SELECT",
    "NO_COLOR",
    "TERM",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_INSTANCE_LAYERS",
    "WGPU_ADAPTER_NAME",
    "WGPU_BACKEND_TYPE",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
)

_EPILOG = """\
The self-test loads a small model in each weight format, runs it, samples
tokens, and compares the results with known ones. (It also runs by itself
before the first text, once for each adapter, driver and weight format.)
--json has the figures of each of its checks. Without a GPU the rest is
printed all the same.
Exit status: 0 if the self-test passes, 1 if it fails or there is no adapter.

examples:
  gpt2-wgpu doctor
  gpt2-wgpu doctor --adapter 1
  gpt2-wgpu doctor --json | jq .adapter
  gpt2-wgpu doctor --json > report.json
"""


def add_parser(commands: argparse._SubParsersAction[Parser]) -> Parser:
    """Adds the command `doctor` to `commands`; returns its parser."""
    parser = commands.add_parser(
        "doctor",
        help="describe this machine and its GPU, and run a self-test",
        description="Prints versions, environment, adapters, limits, models and memory, and runs\n"
        "a self-test. It has what a bug report needs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_adapter(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command; returns the exit status."""
    facts: dict[str, Any] = {
        "versions": device_report.versions() | device_report.versions_of(_PACKAGES),
        "platform": platform.platform(),
        "machine": _machine(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "models": _models(),
        "adapters": _adapters(),
    }
    return device_report.report(facts, args, terminal)


def _machine() -> dict[str, Any]:
    """Processor and memory; None for what the system does not say."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        memory = None
    return {"processor": platform.machine(), "cores": os.cpu_count(), "memory_bytes": memory}


def _models() -> dict[str, str]:
    return {
        model.name: f"{model.nbytes / 2**20:,.1f} MiB"
        for model in local_models()
        if model.nbytes is not None
    }


def _adapters() -> dict[str, str]:
    """The adapters by the index that --adapter takes; the error where they cannot be listed."""
    import gpt2_wgpu as gw

    try:
        found = gw.adapters()
    except DeviceError as error:
        return {"none": str(error)}
    return {
        str(index): f"{each.name} ({each.adapter_type}, {each.backend}, driver {each.driver})"
        for index, each in enumerate(found)
    }
