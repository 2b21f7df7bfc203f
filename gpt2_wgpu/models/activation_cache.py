"""``ActivationCache``: activations of one forward pass, by the names of their hook points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.hook_points import full_name, point_names
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.tensors import Tensor, dispose
from gpt2_wgpu.webgpu import sync


class ActivationCache:
    """Activations of a forward pass of ``run_with_cache``, tensors by name.

    ``cache["blocks.3.attn.hook_pattern"]`` and ``cache["pattern", 3]`` are the same tensor. It can
    be iterated as a dict. The tensors belong to the memory scope in which they were computed
    (``gw.tidy``, ``gw.keep``); :meth:`dispose` frees them.
    """

    def __init__(self, backbone: GPT2Backbone, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self._layers = backbone.num_layers
        # A function, since `gw.dispose` of a cache must not reach the weights.
        self._backbone: Callable[[], GPT2Backbone] = lambda: backbone

    def __getitem__(self, key: Any) -> Tensor:
        """Return the activation of a name, or of ``(short name, layer)``, as in TransformerLens.

        InvalidArgumentError if it was not computed.
        """
        name = full_name(key, self._layers)
        if name not in self._tensors:
            if name in point_names(self._layers):
                raise InvalidArgumentError(
                    f"{name} was not computed: pass it to run_with_cache in names"
                )
            raise InvalidArgumentError(
                f"no hook point is called {shown(name)}: the cache has "
                f"{listed(list(self._tensors), 3)}"
            )
        return self._tensors[name]

    def __contains__(self, key: object) -> bool:
        return full_name(key, self._layers) in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"<ActivationCache of {len(self)}: {listed(list(self._tensors), 3)}>"

    def keys(self) -> list[str]:
        """Names, in the order in which they were computed."""
        return list(self._tensors)

    def values(self) -> list[Tensor]:
        """Activations, in the same order."""
        return list(self._tensors.values())

    def items(self) -> list[tuple[str, Tensor]]:
        """Pairs of both."""
        return list(self._tensors.items())

    def dispose(self) -> None:
        """Free the tensors. Idempotent."""
        dispose(self._tensors)

    def numpy(self) -> dict[str, Any]:
        """Copy all activations to NumPy arrays, by name; blocks (async counterpart: ``data``)."""
        import numpy as np

        views = sync(self.data(), "cache.data()")
        return {name: np.asarray(view) for name, view in views.items()}

    async def data(self) -> dict[str, memoryview]:
        """Read all activations: a memoryview of each, by name."""
        return {name: await each.data() for name, each in self._tensors.items()}
