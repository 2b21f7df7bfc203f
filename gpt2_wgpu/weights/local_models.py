"""Models on this machine: the embedded one and those in the Hub's cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.weights.presets import EMBEDDED, hub_id, presets, resolve
from gpt2_wgpu.weights.sources import missing_files


@dataclass(frozen=True)
class LocalModel:
    """Model by the name that loads it; ``nbytes`` on the disk, None if it has to be fetched."""

    name: str
    nbytes: int | None
    description: str


def local_models() -> list[LocalModel]:
    """Return the presets, then the other GPT-2 models in the Hub's cache, without a request."""
    cached = dict(_cached())
    found = []
    for name, description in presets().items():
        nbytes = _embedded_size() if name == EMBEDDED else cached.get(hub_id(name) or "")
        found.append(LocalModel(name, nbytes, description))
    ours = {hub_id(name) for name in presets()}
    others = sorted(cached.keys() - ours)
    return found + [LocalModel(name, cached[name], "from the Hub") for name in others]


def _embedded_size() -> int | None:
    try:
        directory = resolve(EMBEDDED)
    except PresetError:
        return None
    return sum(file.stat().st_size for file in directory.iterdir() if file.is_file())


def _cached() -> Iterator[tuple[str, int]]:
    """Yield repository and size of each complete GPT-2 model in the Hub's cache."""
    try:
        from huggingface_hub import constants, scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return
    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
    except (CacheNotFound, ValueError):  # ValueError: the cache is a file
        return
    for repository in cache.repos:
        if repository.repo_type != "model":
            continue
        snapshots = [revision.snapshot_path for revision in repository.revisions]
        if any(_is_gpt2(path) and not missing_files(path) for path in snapshots):
            yield repository.repo_id, repository.size_on_disk


def _is_gpt2(directory: Path) -> bool:
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "gpt2"
