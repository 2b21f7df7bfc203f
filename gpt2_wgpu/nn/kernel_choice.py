"""Choices of kernels by a caller, in place of a layer's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError

# Layer → arguments and result of its choice.
LAYERS = {
    "linear": "(tokens, out_features) -> kernel, workgroups (x, y, z), constants",
    "cached_attention": "(cache) -> kernel, positions of a split",
}
_choices: ContextVar[dict[str, Callable[..., Any]] | None] = ContextVar("choices", default=None)


@contextmanager
def choose_kernels(layer: str, choose: Callable[..., Any]) -> Iterator[None]:
    """Let ``choose`` choose the kernels of a layer, within the block of this thread or task.

    For tests and microbenchmarks of one kernel. The result is not checked: a kernel that the
    device cannot run, or a wrong grid, gives wrong numbers.

    Args:
        layer: "linear" or "cached_attention".
        choose: called as ``LAYERS[layer]`` says.

    Raises:
        InvalidArgumentError: the layer has another name.
    """
    if layer not in LAYERS:
        raise InvalidArgumentError(f"no layer is called {layer!r}: use one of {list(LAYERS)}")
    token = _choices.set({**(_choices.get() or {}), layer: choose})
    try:
        yield
    finally:
        _choices.reset(token)


def kernels_are_chosen() -> bool:
    """Return whether a block of :func:`choose_kernels` is open."""
    return bool(_choices.get())


def choice_for(layer: str) -> Callable[..., Any] | None:
    """Return the caller's choice for a layer; None without one."""
    choices = _choices.get()
    return None if choices is None else choices.get(layer)
