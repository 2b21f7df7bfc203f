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
    share_unaffected(whole, cache, old)
    device.pipelines = cache
    try:
        yield
    finally:
        device.pipelines = whole
        share_unaffected(cache, whole, old)


def share_unaffected(compiled: PipelineCache, other: PipelineCache, old: str) -> None:
    """Give ``other`` the compiled kernels whose source is without ``old``."""
    for key, kernel in compiled._kernels.items():
        if old not in load_source(*key[:2]):
            other._kernels.setdefault(key, kernel)
