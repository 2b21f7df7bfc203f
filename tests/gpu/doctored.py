"""Device with modified kernels: the source of a ``.wgsl`` file is replaced."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gpt2_wgpu as gw
from gpt2_wgpu.webgpu.pipelines import PipelineCache, load_source, shader_directory


@contextmanager
def doctored(device: gw.Device, folder: Path, file: str, old: str, new: str) -> Iterator[None]:
    """Inside, ``device`` compiles a copy of the shaders, with ``new`` for ``old`` in ``file``."""
    shaders = folder / "shaders"
    shutil.copytree(shader_directory(), shaders)
    path = shaders / file
    text = path.read_text()
    assert old in text, f"{file} has no {old!r}"
    path.write_text(text.replace(old, new))
    whole = device.pipelines
    cache = PipelineCache(device, shaders)
    for key, kernel in whole._kernels.items():  # compiled kernels that are not affected
        if load_source(*key[:2]) == load_source(*key[:2], shaders):
            cache._kernels[key] = kernel
    device.pipelines = cache
    try:
        yield
    finally:
        device.pipelines = whole
