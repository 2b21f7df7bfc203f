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

_MODULES = {  # of the short names, as in ``cache["pattern", 3]``
    **dict.fromkeys(("q", "k", "v", "attn_scores", "pattern", "z", "result"), "attn"),
    **dict.fromkeys(("pre", "post"), "mlp"),
}
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
    layer = integer("layer", layer, -layers, layers - 1)
    name = _ALIASES.get(name, name)
    module = module or _MODULES.get(name)
    parts = [f"blocks.{layer % layers}", *([] if module is None else [module]), f"hook_{name}"]
    return ".".join(parts)


def selected(names: Any, known: Sequence[str]) -> list[str]:
    """Return those of ``known`` that ``names`` select, in their order.

    InvalidArgumentError for a name, pattern or function that selects none, or another type.
    """
    if isinstance(names, str) or callable(names) or not isinstance(names, Iterable):
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
            f"list of these, not by {shown(wanted)}"
        )
    if not found:
        close = difflib.get_close_matches(str(wanted), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "lm.hook_points lists them"
        raise InvalidArgumentError(f"no hook point matches {shown(wanted)}: {hint}")
    return found
