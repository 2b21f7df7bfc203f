"""``ActivationCache``: activations of one forward pass, by the names of their hook points."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models import residual_stacks as stacks
from gpt2_wgpu.models.evaluation import LanguageModel
from gpt2_wgpu.models.hook_points import full_name, point_names
from gpt2_wgpu.models.logit_lens import LogitLens, logit_lens
from gpt2_wgpu.shown import listed, shown
from gpt2_wgpu.tensors import Tensor, dispose, ops, tidy
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import sync

Labelled = Tensor | tuple[Tensor, list[str]]


class ActivationCache:
    """Activations of a forward pass of ``run_with_cache``, tensors by name.

    ``cache["blocks.3.attn.hook_pattern"]`` and ``cache["pattern", 3]`` are the same tensor. It can
    be iterated as a dict. The tensors belong to the memory scope in which they were computed
    (``gw.tidy``, ``gw.keep``); :meth:`dispose` frees them.
    """

    def __init__(
        self, lm: LanguageModel, tensors: Mapping[str, Tensor], token_ids: list[list[int]]
    ) -> None:
        self.token_ids = token_ids  # [B, T] of the run, with padding
        self._tensors = dict(tensors)
        self._layers = lm.backbone.num_layers
        # A function, since `gw.dispose` of a cache must not reach the weights.
        self._lm: Callable[[], LanguageModel] = lambda: lm

    @property
    def num_layers(self) -> int:
        """Number of blocks of the model."""
        return self._layers

    def token_text(self, token_id: int) -> str:
        """Return the text of a token on its own; its id in brackets without a tokenizer."""
        preprocessor = self._lm().preprocessor
        if preprocessor is None or not preprocessor.tokenizer.has_id(token_id):
            return f"[{token_id}]"
        return preprocessor.tokenizer.decode([token_id])

    def token_texts(self, row: int = 0) -> list[str]:
        """Return :meth:`token_text` of each token of a row."""
        return [self.token_text(token) for token in self.token_ids[row]]

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

    def _all(self, names: Sequence[str]) -> list[Tensor]:
        """Return activations; an InvalidArgumentError lists those that were not computed."""
        missing = [name for name in names if name not in self._tensors]
        if missing:
            patterns = dict.fromkeys(re.sub(r"^blocks\.\d+\.", "*.", name) for name in missing)
            raise InvalidArgumentError(
                f"{len(missing)} of {len(names)} activations were not computed: pass "
                f"{list(patterns)} to run_with_cache in names"
            )
        return [self._tensors[name] for name in names]

    def __contains__(self, key: object) -> bool:
        try:
            return full_name(key, self._layers) in self._tensors
        except InvalidArgumentError:  # no point is called so
            return False

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

    # --- lenses ---------------------------------------------------------------------------------

    def logit_lens(
        self, top: int = 10, tokens: Any = None, positions: Sequence[int] | None = None
    ) -> LogitLens:
        """Return what the head would predict from the residual stream of each layer.

        The final norm and the head of ``resid_pre`` of each block and of the last ``resid_post``.

        Args:
            top: number of tokens with their probabilities.
            tokens: tokens whose ranks are wanted, as of :meth:`logit_attrs`.
            positions: of the text, from 0, negative from the end; default: all.
        """
        backbone = self._lm().backbone
        top = integer("top", top, 1, backbone.config.vocab_size)
        names, labels = stacks.accumulated_resid(self._layers, self._layers, False, False)
        streams = self._all(names)
        with tidy("logit lens") as scope:
            if positions is not None:
                places = _places(positions, streams[0].shape[1])
                streams = [ops.gather(x, places, axis=1) for x in streams]
            targets = None if tokens is None else self._ids("tokens", tokens, streams[0])
            return scope.escape(logit_lens(backbone, streams, labels, top, targets))

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Labelled:
        """Stack the residual stream before each block up to ``layer``: [N, B, T, D].

        Args:
            layer: from 0; None, -1 or the number of layers: also the stream before the head.
            incl_mid: whether the stream after the attention of earlier blocks is included.
            apply_ln: whether each is normalized: before the head by the final norm with its own
                mean and scale, before a block by the scale of that block's input.
            mlp_input: whether the stream before the MLP of ``layer`` is included.
            return_labels: whether to return a pair (stack, labels).
        """
        place = stacks.layer_of(layer, self._layers)
        names, labels = stacks.accumulated_resid(self._layers, place, incl_mid, mlp_input)
        with tidy("accumulated_resid") as scope:
            stack = stacks.stacked(self._all(names))
            if apply_ln and place == self._layers:
                stack = stacks.final_norm(self._lm().backbone, stack)
            elif apply_ln:
                stack = self._scaled(stack, place, mlp_input)
            return scope.escape((stack, labels) if return_labels else stack)

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: str = "all",
        apply_ln: bool = False,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Labelled:
        """Stack the parts whose sum is the input of ``layer``: [N, B, T, D].

        Args:
            layer: from 0; None, -1 or the number of layers: the input of the head.
            mlp_input: whether the attention of ``layer`` is included: the input of its MLP.
            mode: "all", or the results of "attn" or "mlp" alone.
            apply_ln: whether each is centred and divided by the scale of the layer's input norm.
            incl_embeds: whether token and position embeddings are included.
            return_labels: whether to return a pair (stack, labels).
        """
        place = stacks.layer_of(layer, self._layers)
        names, labels = stacks.decompose_resid(self._layers, place, mlp_input, mode, incl_embeds)
        with tidy("decompose_resid") as scope:
            stack = stacks.stacked(self._all(names))
            if apply_ln:
                stack = self._scaled(stack, place, mlp_input)
            return scope.escape((stack, labels) if return_labels else stack)

    def stack_head_results(
        self,
        layer: int | None = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
    ) -> Labelled:
        """Stack what each head before ``layer`` adds to the residual stream: [N, B, T, D].

        Computed from ``hook_z`` where ``hook_result`` was not kept.

        Args:
            layer: from 1; None, -1 or the number of layers: all heads.
            return_labels: whether to return a pair (stack, labels), "L0H0" for the first head.
            incl_remainder: whether the rest of the stream is the last component.
            apply_ln: as of :meth:`decompose_resid`.
        """
        place = integer("layer", stacks.layer_of(layer, self._layers), 1, self._layers)
        backbone, parts, labels = self._lm().backbone, list[Tensor](), list[str]()
        with tidy("stack_head_results") as scope:
            for index in range(place):
                results = stacks.head_results(backbone, self._tensors, index)
                results = self["z", index] if results is None else results  # not there: an error
                parts.append(ops.transpose(results, (2, 0, 1, 3)))
                labels += [f"L{index}H{head}" for head in range(backbone.num_heads)]
            stack = ops.concat(parts)
            if incl_remainder:
                rest = ops.sub(self["resid_post", place - 1], ops.sum(stack, 0))
                stack = ops.concat([stack, ops.expand_dims(rest, 0)])
                labels.append("remainder")
            if apply_ln:
                stack = self._scaled(stack, place, False)
            return scope.escape((stack, labels) if return_labels else stack)

    def logit_attrs(
        self, residual_stack: Tensor, tokens: Any, incorrect_tokens: Any = None
    ) -> Tensor:
        """Return what each component adds to the logits of ``tokens``: [N, B, T].

        Components are centred, divided by the scale of the final norm and multiplied by its weight
        and the head's row of a token (TransformerLens: with folded norms). So those of
        :meth:`decompose_resid` sum to the logit, up to the product of the norm's bias and the row.

        Args:
            residual_stack: [N, B, T, D], without a norm.
            tokens: a token, as text or id, for all positions; one for each row; or [B, T].
            incorrect_tokens: likewise, whose logits are subtracted.

        Raises:
            InvalidArgumentError: no such token, or a text is not one token.
            ShapeError: shapes differ from those of the cache.
        """
        backbone = self._lm().backbone
        with tidy("logit_attrs") as scope:
            parts = self._scaled(residual_stack, self._layers, False)
            toward = stacks.directions(backbone, self._ids("tokens", tokens, parts[0]))
            if incorrect_tokens is not None:
                ids = self._ids("incorrect_tokens", incorrect_tokens, parts[0])
                toward = ops.sub(toward, stacks.directions(backbone, ids))
            return scope.escape(ops.sum(ops.mul(parts, toward), -1))

    def _scaled(self, stack: Tensor, layer: int, mlp_input: bool) -> Tensor:
        """Return ``stack``, centred and divided by the scale of the norm of a layer's input."""
        name, normalized = stacks.input_norm(self._layers, layer, mlp_input)
        if name in self._tensors:
            return stacks.scaled(stack, self._tensors[name])
        if normalized not in self._tensors:
            return self[name]  # an error
        return stacks.scaled(stack, stacks.scale_of(self._lm().backbone, self[normalized]))

    def _ids(self, name: str, tokens: Any, like: Tensor) -> Tensor:
        """Return tokens as ids [B, T], for the batch and positions of ``like`` [B, T, D]."""
        if isinstance(tokens, str):
            if (preprocessor := self._lm().preprocessor) is None:
                raise InvalidArgumentError(f"this model has no preprocessor: give {name} as ids")
            ids = preprocessor.tokenizer.encode(tokens)
            if len(ids) != 1:
                raise InvalidArgumentError(
                    f"{name}: {shown(tokens)} is {len(ids)} tokens, not one (a word in a text "
                    "begins with a space)"
                )
            tokens = ids[0]
        return stacks.token_rows(self._lm().backbone, name, tokens, *like.shape[:2])


def _places(positions: Sequence[int], length: int) -> list[int]:
    """Return positions from 0; InvalidArgumentError for none, and for one that does not exist."""
    found = [integer("positions", each, -length, length - 1) % length for each in positions]
    if not found:
        raise InvalidArgumentError("logit_lens: positions is empty")
    return found
