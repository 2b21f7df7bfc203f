"""Kernels of a first visit, which the page's worker has compiled while Python is downloaded.

    python scripts/first_kernels.py FILE

The embedded model's, in the order in which Python asks for them: the microbenchmark of weight
formats, the self-test, loading and the text that warms up. Each is run on a `PaperDevice`, for each
kind of adapter that takes other kernels. FILE is compressed JSON, for web/early-kernels.js:

    device      label, features and limits that Python asks for, and powerPreference
    facts       how to read what Python has stored about the machine (models/remembered.py)
    model       name of the embedded model
    paragraphs  of WGSL, which blank lines separate: modules share most
    modules     indices of paragraphs
    pipelines   [index of its module, bind group layout, entry point, constants]
    adapters    `seen`: what an adapter's `info` has, for the first that fits; `cache`: format of
                its cache; `measure`, `test`, `text`: indices of pipelines by weight format,
                those of the measurement by ""
"""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # not an installed package of another time

from gpt2_wgpu import nn  # noqa: E402
from gpt2_wgpu._version import __version__  # noqa: E402
from gpt2_wgpu.diagnostics import dtype_timing  # noqa: E402
from gpt2_wgpu.diagnostics.checks import PendingChecks  # noqa: E402
from gpt2_wgpu.integrations.web_kernels import prepare_first_text  # noqa: E402
from gpt2_wgpu.models import default_dtype, self_test  # noqa: E402
from gpt2_wgpu.models.loading import open_preset  # noqa: E402
from gpt2_wgpu.webgpu.adapter import WANTED_FEATURES, wanted_limits  # noqa: E402
from gpt2_wgpu.webgpu.capabilities import AdapterInfo  # noqa: E402
from gpt2_wgpu.webgpu.device import LABEL, Device  # noqa: E402
from gpt2_wgpu.webgpu.paper_device import PaperDevice  # noqa: E402
from gpt2_wgpu.webgpu.pipelines import (  # noqa: E402
    kernels_hash,
    layout_entries,
    load_source,
    parse_signature,
    shader_directory,
)
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS  # noqa: E402

MODEL = "fairytales"
SEPARATOR = "\n\n"  # of paragraphs
LIMITS = wanted_limits(None, "default")
# What distinguishes an adapter in a browser, and wgpu's description of it.
ADAPTERS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"architecture": "swiftshader"}, {"device": "google swiftshader"}),
    ({"isFallbackAdapter": True}, {"adapter_type": "CPU"}),
    ({}, {"adapter_type": "Unknown"}),
)

Key = tuple[Any, ...]  # name, variant, constants
Work = Callable[[Device], Awaitable[object]]


def main(argv: list[str]) -> int:
    (file,) = argv
    text = json.dumps(asyncio.run(contents()), separators=(",", ":"))
    Path(file).write_bytes(gzip.compress(text.encode(), mtime=0))
    return 0


async def contents() -> dict[str, Any]:
    """Return what the file holds."""
    table = Table()
    adapters = []
    for seen, described in ADAPTERS:
        info = AdapterInfo.from_adapter(described)
        phases = await phases_of(info)
        listed = {
            phase: {k: table.add(keys) for k, keys in of.items()} for phase, of in phases.items()
        }
        cache = nn.default_cache_dtype(PaperDevice(info, LIMITS))
        adapters.append({"seen": seen, "cache": cache, **listed})
    preference = inspect.signature(Device.create).parameters["power_preference"].default
    return {
        "device": {
            "powerPreference": preference,
            "label": LABEL,
            "features": WANTED_FEATURES,
            "limits": [re.sub("-(.)", lambda match: match[1].upper(), name) for name in LIMITS],
        },
        "facts": {
            "version": __version__,
            "kernels": kernels_hash(shader_directory()),
            "timedKernels": dtype_timing.kernel_hash(),
            "usual": default_dtype.USUAL,
            "rounded": default_dtype.ROUNDED,
            "minSpeedup": default_dtype.MIN_SPEEDUP,
        },
        "model": MODEL,
        "modules": [table.paragraphs_of(code) for code in table.modules],
        "paragraphs": list(table.paragraphs),
        "pipelines": table.pipelines,
        "adapters": adapters,
    }


async def phases_of(info: AdapterInfo) -> dict[str, dict[str, list[Key]]]:
    """Return the kernels of each phase, by weight format, on such an adapter."""
    likely = (default_dtype.USUAL, default_dtype.ROUNDED)

    async def measure(device: Device) -> None:
        await dtype_timing.seconds_of_products(device, likely)

    phases: dict[str, dict[str, list[Key]]] = {"measure": {}, "test": {}, "text": {}}
    if info.is_software:
        phases["measure"][""] = await kernels_of(info, measure)
    for dtype in WEIGHT_FORMATS:
        phases["test"][dtype] = await kernels_of(info, partial(test, dtype=dtype))
        phases["text"][dtype] = await kernels_of(info, partial(write, dtype=dtype))
    return phases


async def test(device: Device, dtype: str) -> None:
    """Run the self-test, without its comparison."""
    with PendingChecks(device) as checks:
        await self_test.add_checks(checks, dtype, nn.default_cache_dtype(device))


async def write(device: Device, dtype: str) -> None:
    """Load the embedded model, and write the text that warms up."""
    await prepare_first_text(await open_preset(ROOT / "models" / MODEL, "auto"), dtype, device)


async def kernels_of(info: AdapterInfo, work: Work) -> list[Key]:
    """Return what `work` asks for, in order."""
    device = PaperDevice(info, LIMITS)
    await work(device)
    return device.pipelines.keys


class Table:
    """Pipelines, and the code of their modules, each once."""

    def __init__(self) -> None:
        self.paragraphs: dict[str, int] = {}
        self.modules: dict[str, int] = {}
        self.pipelines: list[tuple[int, list[dict[str, Any]], str, Mapping[str, Any]]] = []
        self._known: dict[Key, int] = {}

    def add(self, keys: list[Key]) -> list[int]:
        """Return the indices of these pipelines."""
        return [self._index(*key) for key in keys]

    def paragraphs_of(self, code: str) -> list[int]:
        """Return the indices of a module's paragraphs."""
        known = self.paragraphs
        return [known.setdefault(part, len(known)) for part in code.split(SEPARATOR)]

    def _index(self, name: str, variant: Key, constants: Key) -> int:
        key = name, variant, constants
        if key not in self._known:
            code = load_source(name, variant)
            module = self.modules.setdefault(code, len(self.modules))
            entries = layout_entries(parse_signature(name, code))
            self._known[key] = len(self.pipelines)
            self.pipelines.append((module, entries, "main", dict(constants)))
        return self._known[key]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
