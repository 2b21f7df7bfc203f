"""Added tokens as described in Hugging Face's tokenizer files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.text.special_tokens import RULES


@dataclass(frozen=True)
class AddedToken:
    """A token that is never split.

    ``special``: left out of generated text. ``is_default``: a default of this package, in no file.
    """

    content: str
    special: bool = False
    rules: tuple[str, ...] = ()
    is_default: bool = False


def added_token(value: Any) -> AddedToken | None:
    """Parse a token given as a string or as a JSON object; None if it is neither."""
    if isinstance(value, str):
        return AddedToken(value) if value else None
    if not isinstance(value, dict):
        return None
    content = value.get("content")
    if not isinstance(content, str) or not content:
        return None
    rules = tuple(rule for rule in RULES if value.get(rule))
    return AddedToken(content, special=bool(value.get("special")), rules=rules)
