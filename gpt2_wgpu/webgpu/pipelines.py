"""Pipeline cache: ``.wgsl`` files compiled to pipelines on first use.

The WGSL is the only description of a kernel: its bindings and ``Params`` struct are parsed from the
source, so that a call with a missing or unknown one is an error with the names of both.

Preprocessing: ``//!include "file.wgsl"`` inserts a file of ``shaders/include``; ``{key}`` in its
name is replaced from the kernel's *variant*, e.g. ``//!include "weight_{weight}.wgsl"``. Numbers
(tile sizes, switches) are WGSL ``override`` constants.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import ShaderError
from gpt2_wgpu.webgpu.protocols import OpenGPU

_INCLUDE = re.compile(r'^//!include "([^"]+)"[^\n]*$', re.MULTILINE)
_BINDING = re.compile(r"@group\(0\)\s*@binding\((\d+)\)\s*var<([^>]*)>\s*(\w+)\s*:")
_PARAMS = re.compile(r"struct Params\s*\{([^}]*)\}")
_FIELD = re.compile(r"(\w+)\s*:\s*(u32|i32|f32)\s*,")
_PACK = {"u32": "I", "i32": "i", "f32": "f"}
_ACCESS = {
    "storage": "read-only-storage",
    "storage,read": "read-only-storage",
    "storage,read_write": "storage",
    "uniform": "uniform",
}


@dataclass(frozen=True)
class Signature:
    """Interface of a kernel: storage bindings by name and the fields of ``Params``."""

    bindings: dict[str, tuple[int, str]]  # name -> (index, buffer binding type)
    uniform: int  # binding index of ``params``
    fields: tuple[str, ...]
    packing: struct.Struct


@dataclass(frozen=True)
class Kernel:
    """A compiled pipeline and its signature."""

    name: str
    signature: Signature = field(repr=False)
    pipeline: Any = field(repr=False)  # wgpu.GPUComputePipeline
    layout: Any = field(repr=False)  # wgpu.GPUBindGroupLayout

    def pack(self, params: Mapping[str, int | float]) -> bytes:
        """Return the bytes of ``Params``; ShaderError for an unset or unknown parameter."""
        fields = self.signature.fields
        if params.keys() != set(fields):
            raise ShaderError(_difference(self.name, "parameter", params, fields))
        try:
            return self.signature.packing.pack(*[params[name] for name in fields])
        except struct.error as error:
            raise ShaderError(f"kernel {self.name}: {error} in parameters {dict(params)}") from None


def shader_directory() -> Path:
    """Return ``shaders/``: package data in a wheel, a top-level folder in a checkout."""
    package = Path(__file__).parents[1]
    for candidate in (package / "shaders", package.parent / "shaders"):
        if candidate.is_dir():
            return candidate
    raise ShaderError(f"no shaders folder beside {package}: the installation is incomplete")


@lru_cache(maxsize=8)
def kernels_hash(directory: Path) -> str:
    """Hash of every kernel of ``directory``: results that others gave are out of date."""
    sum_of_all = 0
    for path in sorted(directory.rglob("*.wgsl")):
        sum_of_all = zlib.crc32(path.read_bytes(), zlib.crc32(path.name.encode(), sum_of_all))
    return f"{sum_of_all:08x}"


@lru_cache(maxsize=256)
def load_source(
    name: str, variant: tuple[tuple[str, str], ...] = (), directory: Path | None = None
) -> str:
    """Return the WGSL of kernel ``name`` with its includes inserted."""
    directory = directory or shader_directory()
    keys = dict(variant)

    def paste(match: re.Match[str]) -> str:
        try:
            included = match[1].format(**keys)
        except KeyError as missing:
            raise ShaderError(f"kernel {name}: the variant must set {missing}") from None
        return _read(directory / "include" / included, name)

    source = _read(directory / f"{name}.wgsl", name)
    while _INCLUDE.search(source):
        source = _INCLUDE.sub(paste, source)
    return source


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ShaderError(f"kernel {name}: cannot read {path} ({error.strerror})") from None


def parse_signature(name: str, source: str) -> Signature:
    """Parse bindings and parameters from the WGSL."""
    bindings: dict[str, tuple[int, str]] = {}
    uniform = None
    for index, access, binding in _BINDING.findall(source):
        kind = _ACCESS.get("".join(access.split()))
        if kind is None:
            raise ShaderError(f"kernel {name}: {binding} is declared var<{access}>")
        if kind == "uniform":
            uniform = int(index)
        else:
            bindings[binding] = (int(index), kind)
    params = _PARAMS.search(source)
    if uniform is None or params is None:
        raise ShaderError(f"kernel {name}: declares no `struct Params` or no uniform binding")
    declarations = re.sub(r"//[^\n]*", "", params[1])
    fields = _FIELD.findall(declarations)
    if len(fields) != declarations.count(":"):
        raise ShaderError(f"kernel {name}: Params may hold only u32, i32 and f32 fields")
    layout = struct.Struct("<" + "".join(_PACK[kind] for _, kind in fields))
    return Signature(bindings, uniform, tuple(field for field, _ in fields), layout)


class PipelineCache(NotCopyable):
    """The kernels of one device, compiled on first use from the files of ``directory``."""

    def __init__(self, device: OpenGPU, directory: Path | None = None) -> None:
        self._device = device
        self.directory = directory or shader_directory()
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._modules: dict[tuple[Any, ...], tuple[Any, Signature]] = {}

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        """Name, variant and constants of the kernels so far, in the order of their first use."""
        return [*self._kernels]

    def get(
        self,
        name: str,
        variant: Mapping[str, str] | None = None,
        constants: Mapping[str, int | float] | None = None,
    ) -> Kernel:
        """Return the compiled kernel; ShaderError with file, variant and adapter."""
        key = (
            name,
            tuple(sorted(variant.items())) if variant else (),
            tuple(sorted(constants.items())) if constants else (),
        )
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._compile(*key)
        return kernel

    def _compile(self, name: str, variant: tuple[Any, ...], constants: tuple[Any, ...]) -> Kernel:
        import wgpu

        gpu = self._device.gpu
        label = f"shaders/{name}.wgsl {dict(variant)} {dict(constants)}"
        with self._device.translated_errors():
            try:
                module, signature = self._module(name, variant)
                layout = gpu.create_bind_group_layout(entries=layout_entries(signature))
                pipeline = gpu.create_compute_pipeline(
                    label=label,
                    layout=gpu.create_pipeline_layout(bind_group_layouts=[layout]),
                    compute={
                        "module": module,
                        "entry_point": "main",
                        "constants": dict(constants),
                    },
                )
            except wgpu.GPUValidationError as error:
                raise ShaderError(
                    f"{label} does not compile on {self._device.info.name}: {error}"
                ) from None
        return Kernel(name, signature, pipeline, layout)

    def _module(self, name: str, variant: tuple[Any, ...]) -> tuple[Any, Signature]:
        key = (name, variant)
        if key not in self._modules:
            source = load_source(name, variant, self.directory)
            signature = parse_signature(name, source)
            module = self.create_module(f"shaders/{name}.wgsl {dict(variant)}", source)
            self._modules[key] = (module, signature)
        return self._modules[key]

    def create_module(self, label: str, source: str) -> Any:
        """Return the shader module of ``source``."""
        return self._device.gpu.create_shader_module(label=label, code=source)


def layout_entries(signature: Signature) -> list[dict[str, Any]]:
    """Return the entries of a kernel's bind group layout, by binding."""
    import wgpu

    kinds = dict(signature.bindings.values())
    kinds[signature.uniform] = "uniform"
    return [
        {"binding": index, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}}
        for index, kind in sorted(kinds.items())
    ]


def _difference(kernel: str, what: str, given: Mapping[str, Any], wanted: Any) -> str:
    unset = sorted(set(wanted) - set(given))
    unknown = sorted(set(given) - set(wanted))
    return f"kernel {kernel}: {what}s not set: {unset}, unknown: {unknown}"


def check_bindings(kernel: Kernel, bindings: Mapping[str, Any]) -> None:
    """Raise ShaderError unless exactly the declared storage bindings are given."""
    if bindings.keys() != kernel.signature.bindings.keys():
        raise ShaderError(_difference(kernel.name, "binding", bindings, kernel.signature.bindings))
