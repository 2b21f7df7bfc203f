"""Configuration of a directory: ``config.json``, overridden by ``generation_config.json``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt2_wgpu.errors import ConfigError
from gpt2_wgpu.models.config import GPT2Config, flat_ids, read_object

_FILE = "generation_config.json"


def read_config(directory: Path) -> GPT2Config:
    """Read the configuration of a directory.

    ``eos_token_id`` and ``bos_token_id`` of ``generation_config.json`` take precedence, as in
    transformers, with a ``UserWarning`` if they omit an end token of ``config.json``.

    Raises:
        ConfigError: a file is malformed, or a setting is not supported.
    """
    path = directory / "config.json"
    config = GPT2Config.from_json_file(path)
    if not (directory / _FILE).is_file():
        return config
    values = read_object(directory / _FILE)
    given = {
        key: flat_ids(values[key])
        for key in ("bos_token_id", "eos_token_id")
        if values.get(key) is not None
    }
    try:
        changed = replace(config, **given)
    except ConfigError as error:
        raise ConfigError(f"{directory / _FILE}: {error}") from None
    _warn_of_difference(read_object(path), config, changed)
    return changed


def _warn_of_difference(written: Mapping[str, Any], old: GPT2Config, new: GPT2Config) -> None:
    if written.get("eos_token_id") is None or {*old.eos_token_ids} <= {*new.eos_token_ids}:
        return
    warnings.warn(
        f"config.json ends a text with token {old.eos_token_id}, {_FILE} with {new.eos_token_id}: "
        "the latter is used, as in transformers",
        stacklevel=4,
    )
