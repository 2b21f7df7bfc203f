"""Names of the hook points of a GPT-2, those of TransformerLens, and how they are selected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.validation import integer

#: A name, a pattern in which ``*`` is any text, a function of a name, or several of these.
Names = str | Callable[[str], bool] | Iterable[str | Callable[[str], bool]]

_NORM = ("hook_scale", "hook_normalized")
ATTENTION = (
    *(f"ln1.{name}" for name in _NORM),
    *(f"attn.hook_{name}" for name in ("q", "k", "v", "attn_scores", "pattern", "z", "result")),
    "hook_attn_out",
)
MLP = (*(f"ln2.{name}" for name in _NORM), "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out")
#: Points of block i, after ``blocks.{i}.``, in the order in which they are computed.
BLOCK = ("hook_resid_pre", *ATTENTION, "hook_resid_mid", *MLP, "hook_resid_post")
EMBEDDING = ("hook_embed", "hook_pos_embed")
FINAL = tuple(f"ln_final.{name}" for name in _NORM)
RESULT = "attn.hook_result"  # as large as all other points of a block together

_OF_BLOCK: dict[str, list[str]] = {}  # modules by the short names, as in ``cache["pattern", 3]``
for _module, _name in (point.rpartition("hook_")[::2] for point in BLOCK):
    _OF_BLOCK.setdefault(_name, []).append(_module.rstrip("."))
_OUTSIDE = {point.rpartition("hook_")[2]: point for point in (*EMBEDDING, *FINAL)}
_ALIASES = {  # of short names, as in TransformerLens
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "query": "q",
    "key": "k",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_mid": "post",
    "mlp_post": "post",
    "attn_result": "result",
}


def point_names(layers: int) -> list[str]:
    """Return all names of a model of so many blocks, in the order in which they are computed."""
    blocks = [f"blocks.{layer}.{point}" for layer in range(layers) for point in BLOCK]
    return [*EMBEDDING, *blocks, *FINAL]


def halves_of(points: Sequence[str]) -> int | None:
    """Return how many half blocks compute ``points``; None: all, and the final norm."""
    halves = 1
    for point in points:
        if point.startswith("ln_final."):
            return None
        if point.startswith("blocks."):
            _, layer, name = point.split(".", 2)
            halves = max(halves, 2 * int(layer) + (2 if name in (*MLP, "hook_resid_post") else 1))
    return halves


def full_name(key: Any, layers: int) -> str:
    """Return the name of the point ``key``: it is the name, or ``(short name, layer, module)``.

    ``("pattern", 3)`` is ``blocks.3.attn.hook_pattern``, ``("scale", 3, "ln1")`` is
    ``blocks.3.ln1.hook_scale``, ``"embed"`` is ``hook_embed``; a negative layer counts from the
    last. InvalidArgumentError for another kind of key, or a layer that does not exist.
    """
    name, layer, module = (*key, None, None)[:3] if isinstance(key, tuple) else (key, None, None)
    if not isinstance(name, str) or (isinstance(key, tuple) and not 1 <= len(key) <= 3):
        raise InvalidArgumentError(
            f"a hook point is a name or (short name, layer), as ('pattern', 3), not {shown(key)}"
        )
    if layer is None:
        if "hook_" in name:
            return name
        return f"ln_final.hook_{name}" if f"hook_{name}" in _NORM else f"hook_{name}"
    layer = _layer_index(layer, layers)
    name = _ALIASES.get(name, name)
    if not module and len(known := _OF_BLOCK.get(name, [])) == 1:
        (module,) = known
    return ".".join([f"blocks.{layer}", *([module] if module else []), f"hook_{name}"])


def _layer_index(layer: Any, layers: int) -> int:
    """Return a layer from 0, of one that may be negative; InvalidArgumentError for another."""
    try:
        return integer("layer", layer, -layers, layers - 1) % layers
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{error}: the model has {layers} layers") from None


def suggestion(key: Any, layers: int) -> str:
    """Return which keys may have been meant by ``key``, which is no point; "" for none."""
    name, layer, _ = (*key, None, None)[:3] if isinstance(key, tuple) else (key, None, None)
    if layer is None and ("hook_" in name or "." in name):
        block = re.match(r"blocks\.(\d+)\.", name)
        if block and int(block[1]) >= layers:
            return f"the model has {layers} layers, blocks.0 to blocks.{layers - 1}"
        close = difflib.get_close_matches(name, point_names(layers), n=1)
        return f"did you mean {close[0]!r}?" if close else ""
    if not (short := _closest_short(name)):
        return ""
    if (modules := _OF_BLOCK.get(short)) is None:
        return f"did you mean {short!r}?"
    at = 0 if layer is None else layer
    keys = [(short, at)] if len(modules) == 1 else [(short, at, module) for module in modules]
    hint = f"did you mean {' or '.join(map(repr, keys))}?"
    return f"each layer has one, {hint}" if layer is None else hint


def _closest_short(name: str) -> str:
    """Return the short name that ``name`` is, or is likely to mean; "" for none."""
    known = {**{short: short for short in (*_OF_BLOCK, *_OUTSIDE)}, **_ALIASES}
    close = difflib.get_close_matches(name, known, n=1)
    return known[close[0]] if close else ""


def patterns_of(points: Iterable[str]) -> list[str]:
    """Return what selects ``points``: names, and one pattern for those of several blocks."""
    by_end: dict[str, list[str]] = {}
    for point in points:
        end = point.split(".", 2)[2] if point.startswith("blocks.") else point
        by_end.setdefault(end, []).append(point)
    return [found[0] if len(found) == 1 else f"*.{end}" for end, found in by_end.items()]


def selected(names: Any, known: Sequence[str]) -> list[str]:
    """Return those of ``known`` that ``names`` select, in their order.

    InvalidArgumentError for a name, pattern or function that selects none, or another type.
    """
    is_key = isinstance(names, tuple) and any(isinstance(each, int) for each in names)
    if isinstance(names, str) or callable(names) or is_key or not isinstance(names, Iterable):
        found = set(_matching(names, known))
    else:
        found = {name for each in names for name in _matching(each, known)}
    return [name for name in known if name in found]


def _matching(wanted: Any, known: Sequence[str]) -> list[str]:
    if isinstance(wanted, str):
        pattern = re.compile(".*".join(map(re.escape, wanted.split("*"))))
        found = [name for name in known if pattern.fullmatch(name)]
    elif callable(wanted):
        found = [name for name in known if wanted(name)]
    else:
        raise InvalidArgumentError(
            "hook points are selected by a name, a pattern with *, a function of the name, or a "
            f"list of these, not by {shown(wanted)}{_name_of_key(wanted, known)}"
        )
    if not found:
        pattern_meant = _pattern_meant(wanted) if isinstance(wanted, str) else ""
        close = difflib.get_close_matches(str(wanted), known, n=1)
        meant = pattern_meant or (close[0] if close else "")
        hint = f"did you mean {meant!r}?" if meant else "lm.hook_points lists them"
        raise InvalidArgumentError(f"no hook point matches {shown(wanted)}: {hint}")
    return found


def _pattern_meant(name: str) -> str:
    """Return the pattern of the points that a short name means; "" if it is none."""
    short = _closest_short(name)
    if modules := _OF_BLOCK.get(short):
        module = f"{modules[0]}." if len(modules) == 1 and modules[0] else ""
        return f"*.{module}hook_{short}"
    return _OUTSIDE.get(short, "")


def _name_of_key(key: Any, known: Sequence[str]) -> str:
    """Return a remedy where a key of a cache, ("pattern", 3), is given as a name; "" otherwise."""
    if not isinstance(key, tuple) or not key or not isinstance(key[0], str):
        return ""
    try:
        name = full_name(key, sum(point.endswith("hook_resid_pre") for point in known))
    except InvalidArgumentError:
        return ""
    return f": did you mean {name!r}?" if name in known else ""
