"""Model names: KerasHub's presets, common short names, and the embedded model."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gpt2_wgpu.errors import PresetError
from gpt2_wgpu.other_formats import kind_of
from gpt2_wgpu.shown import shown
from gpt2_wgpu.weights.sources import HUB_SCHEME, hub_page, resolve_directory

__all__ = ["EMBEDDED", "presets", "resolve"]

EMBEDDED = "fairytales"

_EMBEDDED_DESCRIPTION = "a small model trained on fairy tales; it comes with the package"
# Name → (hub id, description); scripts/generate_web.py copies it into web/sources.js.
HUB_PRESETS = {
    "gpt2_base_en": ("openai-community/gpt2", "GPT-2, 12 layers, 124M parameters"),
    "gpt2_medium_en": ("openai-community/gpt2-medium", "GPT-2, 24 layers, 355M parameters"),
    "gpt2_large_en": ("openai-community/gpt2-large", "GPT-2, 36 layers, 774M parameters"),
    "gpt2_extra_large_en": ("openai-community/gpt2-xl", "GPT-2, 48 layers, 1,558M parameters"),
    "gpt2": ("openai-community/gpt2", "short for gpt2_base_en"),
    "gpt2-medium": ("openai-community/gpt2-medium", "short for gpt2_medium_en"),
    "gpt2-large": ("openai-community/gpt2-large", "short for gpt2_large_en"),
    "gpt2-xl": ("openai-community/gpt2-xl", "short for gpt2_extra_large_en"),
    "distilgpt2": ("distilbert/distilgpt2", "distilled GPT-2, 6 layers, 82M parameters"),
}
_KERAS_ONLY = "gpt2_base_en_cnn_dailymail"

_PACKAGE = Path(__file__).resolve().parents[1]
# In an installed wheel, and in a checkout.
_EMBEDDED_PLACES = (_PACKAGE / "presets" / EMBEDDED, _PACKAGE.parent / "models" / EMBEDDED)


def presets() -> dict[str, str]:
    """Return all preset names with a description."""
    return {
        EMBEDDED: _EMBEDDED_DESCRIPTION,
        **{name: f"{text} ({hub_id})" for name, (hub_id, text) in HUB_PRESETS.items()},
    }


def hub_id(name: str) -> str | None:
    """Return the Hub repository of a preset; None if it has none."""
    return HUB_PRESETS[name][0] if name in HUB_PRESETS else None


def resolve(
    preset: str | os.PathLike[str],
    on_progress: Callable[[str], None] | None = None,
    weights: bool = True,
) -> Path:
    """Return the directory of a model.

    Order of precedence: a directory with ``config.json``; a name in `presets`; a hub id
    (``hf://owner/name[@revision]`` or ``owner/name``).

    Args:
        preset: the name or directory.
        on_progress: see `gpt2_wgpu.weights.sources.resolve_directory`.
        weights: likewise.

    Raises:
        PresetError: no model of that name exists or can be fetched.
    """
    name: object = os.fspath(preset) if isinstance(preset, str | os.PathLike) else preset
    if not isinstance(name, str) or not name.strip():
        raise PresetError(f"model name {shown(name)} is empty or not text; choose from {_known()}")
    if not is_possible(name):
        raise PresetError(
            f"model name {shown(name)} holds a character that names of files and repositories "
            "cannot have"
        )
    # os.path instead of Path: it returns False for invalid or overlong names instead of raising.
    try:
        path = os.path.expanduser(name)
    except ValueError:  # a NUL in the name
        raise PresetError(f"no such directory: {shown(name)}") from None
    if os.path.isfile(os.path.join(path, "config.json")):
        return Path(path)
    if isinstance(preset, str):
        if name == EMBEDDED:
            return _embedded()
        if name in HUB_PRESETS:
            try:
                return resolve_directory(HUB_SCHEME + HUB_PRESETS[name][0], on_progress, weights)
            except PresetError as error:  # it names the hub id: add the preset's name
                raise PresetError(f"{name}: {error}") from None
        if name == _KERAS_ONLY:
            raise PresetError(
                f"{name} exists only in KerasHub's own weight format, not as safetensors; "
                "gpt2_base_en is the same architecture"
            )
        if name.startswith(HUB_SCHEME):
            return resolve_directory(name, on_progress, weights)
        if (repository := hub_page(name)) is not None:
            return resolve_directory(HUB_SCHEME + repository, on_progress, weights)
        if "://" in name:
            raise PresetError(
                f"{shown(name)}: only {HUB_SCHEME} addresses and pages of models on huggingface.co "
                "or the mirror in HF_ENDPOINT are supported"
            )
    if os.path.isdir(path):
        raise PresetError(_no_config(path))
    if os.path.exists(path):
        raise PresetError(_no_directory(path))
    if not isinstance(preset, str) or looks_like_path(name):
        raise PresetError(f"no such directory: {shown(name)}")
    if "/" in name:
        return resolve_directory(name, on_progress, weights)
    raise PresetError(f"unknown model {shown(name)}{_suggestion(name)}; choose from {_known()}")


def _no_config(directory: str) -> str:
    """Return the message for a directory without ``config.json``."""
    try:
        kind = kind_of(os.listdir(directory))
    except OSError as error:
        return f"directory {shown(directory)} cannot be read: {error.strerror}"
    remedy = f": {kind}" if kind else ", so it holds no model"
    return f"directory {shown(directory)} has no config.json{remedy}"


def _no_directory(path: str) -> str:
    """Return the message for a path that is not a directory."""
    if (kind := kind_of([os.path.basename(path)])) is not None:
        return f"{shown(path)} is a file: {kind}"
    return f"{shown(path)} is a file; pass the directory that holds it"


def _embedded() -> Path:
    for place in _EMBEDDED_PLACES:
        if (place / "config.json").is_file():
            return place
    if sys.platform == "emscripten":
        raise PresetError(
            f"the wheel for browsers does not contain {EMBEDDED!r}: pass the address of its files, "
            f"for example '/models/{EMBEDDED}' on a host that serves what `make site` builds"
        )
    raise PresetError(
        f"the embedded model {EMBEDDED!r} is not in this installation (looked in "
        f"{' and '.join(str(place) for place in _EMBEDDED_PLACES)}); install gpt2-wgpu again"
    )


def is_possible(name: str) -> bool:
    """Return whether this is a valid file name: without NUL, and encodable."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def looks_like_path(name: str) -> bool:
    """Return whether a name is a path: absolute, relative with a dot, or several levels deep."""
    repository = name.partition("@")[0]
    return (
        Path(name).is_absolute()
        or name.startswith((".", "~"))
        or name.endswith("/")
        or "\\" in name
        or repository.count("/") > 1
    )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), presets(), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _known() -> str:
    return f"{', '.join(presets())}, a directory, or a hub id such as {HUB_SCHEME}owner/name"
