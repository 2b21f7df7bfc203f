"""``HookedCausalLM``: ``CausalLM`` whose activations can be seen and replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Literal, Never, Self, TypeVar, overload

from gpt2_wgpu.errors import DeviceLostError, InvalidArgumentError
from gpt2_wgpu.models.activation_cache import ActivationCache
from gpt2_wgpu.models.evaluated_causal_lm import Texts
from gpt2_wgpu.models.hook_points import RESULT, Names, halves_of, point_names, selected
from gpt2_wgpu.models.hooks import Hook, HookScope, made_hooks
from gpt2_wgpu.models.other_arguments import check_no_others
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.models.session_causal_lm import SessionCausalLM
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, dispose, keep, tidy
from gpt2_wgpu.text.token_arrays import rows_of_ids, rows_of_mask
from gpt2_wgpu.webgpu import sync

T = TypeVar("T")
HookList = Sequence[tuple[Names, Hook]]


class HookedCausalLM(SessionCausalLM):
    """``SessionCausalLM`` with ``run_with_cache``, ``run_with_hooks`` and ``hooks``.

    Names, shapes and meaning of the hook points are those of TransformerLens (docs/hooks.md).
    """

    @property
    def hook_points(self) -> list[str]:
        """Names of all hook points, in the order in which they are computed."""
        return point_names(self.backbone.num_layers)

    def hooks(self, hooks: HookList = (), **others: Never) -> HookScope[Self]:
        """Return a context manager that applies ``hooks`` to all calls of this model in it.

        ``generate`` and ``stream`` included, of this thread or asyncio task; also for ``async
        with``. ``as`` gives this model. A hook that only calls functions of ``gw.ops`` is recorded
        into the decode step and called once; one that reads values is called for every token.

        Args:
            hooks: pairs (names, function). Names: a name, a pattern with ``*``, a function of the
                name, or a list of these. ``function(tensor, name)`` returns None, or a tensor of
                the same shape, which takes the activation's place. ``tensor`` is freed afterwards:
                ``gw.keep`` what is used later.
            **others: none; those of TransformerLens are named in an error.

        Raises:
            InvalidArgumentError: a name matches no point, a function takes other arguments, or
                there are ``others``. In the computation also for a result of another dtype or
                device; ShapeError for one of another shape, DisposedTensorError for a disposed one.
        """
        check_no_others("hooks", others)
        return HookScope(made_hooks(self.backbone, self.backbone.num_layers, hooks), self)

    def run_with_hooks(
        self, inputs: Texts | Mapping[str, Any], hooks: HookList = (), **others: Never
    ) -> Tensor:
        """Return the logits [B, T, V] of a forward pass with ``hooks``; blocks.

        Args:
            inputs: as of :meth:`run_with_cache`.
            hooks: as of :meth:`hooks`.
            **others: as of :meth:`hooks`.

        Raises:
            InvalidArgumentError: as of :meth:`hooks`.
        """
        waiting = self.run_with_hooks_async(inputs, hooks, **others)
        return sync(waiting, "run_with_hooks_async(...)")

    async def run_with_hooks_async(
        self, inputs: Texts | Mapping[str, Any], hooks: HookList = (), **others: Never
    ) -> Tensor:
        """Async counterpart of :meth:`run_with_hooks`."""
        check_no_others("run_with_hooks", others)
        return await self._run(inputs, hooks, self._logits_of)

    async def _run(self, inputs: Any, hooks: HookList, compute: Callable[[Any], T]) -> T:
        """Return the result of ``compute`` of the inputs, with ``hooks``."""
        scope = self.hooks(hooks)
        given, device = self._inputs_of_run(inputs), self.backbone.device
        with scope:
            try:
                return compute(given)
            except DeviceLostError:
                await recover(self.backbone, device)
                return compute(given)

    @overload
    def run_with_cache(
        self, inputs: Any, names: Names | None = ..., return_type: Literal["logits"] = ...
    ) -> tuple[Tensor, ActivationCache]: ...

    @overload
    def run_with_cache(
        self, inputs: Any, names: Names | None = ..., *, return_type: None
    ) -> tuple[None, ActivationCache]: ...

    def run_with_cache(
        self,
        inputs: Texts | Mapping[str, Any],
        names: Names | None = None,
        return_type: Literal["logits"] | None = "logits",
        **others: Never,
    ) -> tuple[Tensor | None, ActivationCache]:
        """Compute the logits of ``inputs`` and keep activations; blocks.

        Args:
            inputs: a text or texts, encoded like prompts; ids, one row or several; or
                ``{"token_ids", "padding_mask"}``. Shorter rows are padded at the end.
            names: the activations to keep, as of :meth:`hooks`; nothing else is computed. None:
                all but ``hook_result``, which are as large as all others together.
            return_type: "logits"; None: nothing after the last of ``names`` is computed. The logits
                of long texts take more memory and time than all blocks together.
            **others: as of :meth:`hooks`.

        Returns:
            Logits [B, T, V] or None, and the activations.

        Raises:
            InvalidArgumentError: a name matches no point, ids are invalid, or there are ``others``.
            ContextLengthError: T exceeds the context.
        """
        waiting = self.run_with_cache_async(inputs, names, return_type, **others)
        return sync(waiting, "run_with_cache_async(...)")

    async def run_with_cache_async(
        self,
        inputs: Texts | Mapping[str, Any],
        names: Names | None = None,
        return_type: Literal["logits"] | None = "logits",
        **others: Never,
    ) -> tuple[Tensor | None, ActivationCache]:
        """Async counterpart of :meth:`run_with_cache`."""
        check_no_others("run_with_cache", others)
        if return_type not in ("logits", None):
            remedy = ": lm.logprobs gives minus the loss of each token"
            raise InvalidArgumentError(
                f'return_type must be "logits" or None, not {shown(return_type)}'
                f"{remedy if return_type in ('loss', 'both') else ''}"
            )
        wanted: Any = (lambda name: not name.endswith(RESULT)) if names is None else names
        points = selected(wanted, self.hook_points)
        inputs = self._inputs_of_run(inputs)
        vocabulary = self.backbone.config.vocab_size
        ids = rows_of_ids(inputs.get("token_ids", ()), vocabulary, ragged=False)
        kept: dict[str, Tensor] = {}

        def look(tensor: Tensor, name: str) -> None:
            dispose(kept.pop(name, None))  # of a run that ended by the loss of the device
            kept[name] = keep(copy(tensor))

        try:
            with tidy("run with cache") as scope:
                hooks: HookList = [(points, look)] if points else []
                no_logits = partial(self._no_logits_of, halves=halves_of(points))
                compute = self._logits_of if return_type else no_logits
                logits = await self._run(inputs, hooks, compute)
                views = {name: copy(tensor) for name, tensor in kept.items()}  # not kept
                mask = inputs.get("padding_mask")
                flags = None if mask is None else rows_of_mask(mask)
                return scope.escape((logits, ActivationCache(self, views, ids, flags)))
        finally:
            dispose(kept)

    def _logits_of(self, inputs: Mapping[str, Any]) -> Tensor:
        with tidy("run with hooks") as scope:
            return scope.escape(self.backbone.logits(self.backbone.forward_without_cache(inputs)))

    def _no_logits_of(self, inputs: Mapping[str, Any], halves: int | None) -> None:
        with tidy("run with hooks"):
            x = self.backbone.forward_without_cache(inputs, halves=halves)
            if halves is None:
                self.backbone.final_norm(x)

    def _inputs_of_run(self, inputs: Any) -> Mapping[str, Any]:
        """Return ``inputs`` as ids and mask [B, T]; the mask is None for rows of equal length."""
        if isinstance(inputs, Mapping):
            return inputs
        vocabulary = self.backbone.config.vocab_size
        if isinstance(inputs, str) or _has_text(inputs):
            preprocessor = self._require_preprocessor("give rows of token ids")
            texts = [inputs] if isinstance(inputs, str) else list(inputs)
            rows = self.encode_prompts(texts, preprocessor)
        elif isinstance(inputs, bytes | set) or not hasattr(inputs, "__len__") or not len(inputs):
            raise InvalidArgumentError(
                "inputs must be texts, rows of ids or a dict of token_ids and padding_mask, not "
                f"{shown(inputs)}"
            )
        else:
            rows = rows_of_ids(inputs, vocabulary)
        longest = max(map(len, rows))
        mask = None
        if min(map(len, rows)) < longest:
            mask = [[place < len(row) for place in range(longest)] for row in rows]
        return {
            "token_ids": [[*row, *[0] * (longest - len(row))] for row in rows],
            "padding_mask": mask,
        }


def _has_text(inputs: Any) -> bool:
    return isinstance(inputs, list | tuple) and any(isinstance(each, str) for each in inputs)
