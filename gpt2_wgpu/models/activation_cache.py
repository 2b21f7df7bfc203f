"""``ActivationCache``: activations of one forward pass, by the names of their hook points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Never

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models import residual_stacks as stacks
from gpt2_wgpu.models.evaluation import LanguageModel
from gpt2_wgpu.models.hook_points import full_name, patterns_of, point_names, suggestion
from gpt2_wgpu.models.logit_lens import LogitLens, logit_lens
from gpt2_wgpu.models.other_arguments import check_no_others
from gpt2_wgpu.models.target_tokens import positions_of, target_ids
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
        self,
        lm: LanguageModel,
        tensors: Mapping[str, Tensor],
        token_ids: list[list[int]],
        padding_mask: list[list[bool]] | None = None,
    ) -> None:
        self.token_ids = token_ids  # [B, T] of the run, with padding
        self.padding_mask = padding_mask  # likewise, False for padding; None: there is none
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

    def positions(self, row: int = 0) -> list[int]:
        """Return the positions of the tokens of a row, from 0, without padding."""
        ids = self.token_ids[row]
        flags = [True] * len(ids) if self.padding_mask is None else self.padding_mask[row]
        return [position for position, flag in enumerate(flags) if flag]

    def token_texts(self, row: int = 0) -> list[str]:
        """Return :meth:`token_text` of each token of a row, without padding."""
        return [self.token_text(self.token_ids[row][each]) for each in self.positions(row)]

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
            hint = suggestion(key, self._layers) or "lm.hook_points lists them"
            raise InvalidArgumentError(f"no hook point is called {shown(name)}: {hint}")
        return self._tensors[name]

    def _require(self, method: str, names: Iterable[str]) -> None:
        """Raise InvalidArgumentError with all of ``names`` that were not computed."""
        if missing := [name for name in dict.fromkeys(names) if name not in self._tensors]:
            raise InvalidArgumentError(
                f"{method} needs activations that were not computed: add to the names of "
                f"run_with_cache {', '.join(map(repr, patterns_of(missing)))}"
            )

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

        Raises:
            InvalidArgumentError: an activation was not computed, or an argument is out of range.
            DisposedTensorError: the cache or the model is disposed; likewise in the methods below
                that need weights.
        """
        backbone = self._lm().backbone
        top = integer("top", top, 1, backbone.config.vocab_size)
        names, labels = stacks.accumulated_resid(self._layers, self._layers, False, False)
        self._require("logit_lens", names)
        streams = [self[name] for name in names]
        length = streams[0].shape[1]
        places = list(range(length)) if positions is None else positions_of(positions, length)
        with tidy("logit lens") as scope:
            if positions is not None:
                streams = [ops.gather(x, places, axis=1) for x in streams]
            targets = None if tokens is None else self._ids("tokens", tokens, streams[0])
            return scope.escape(logit_lens(backbone, streams, labels, places, top, targets))

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        mlp_input: bool = False,
        return_labels: bool = False,
        **others: Never,
    ) -> Labelled:
        """Stack the residual stream before each block up to ``layer``: [N, B, T, D].

        Args:
            layer: from 0; None, -1 or the number of layers: also the stream before the head.
            incl_mid: whether the stream after the attention of earlier blocks is included.
            apply_ln: whether each is normalized: before the head by the final norm with its own
                mean and scale, before a block by the scale of that block's input.
            mlp_input: whether the stream before the MLP of ``layer`` is included.
            return_labels: whether to return a pair (stack, labels).
            **others: none; those of TransformerLens are named in an error, as in all methods below.

        Raises:
            InvalidArgumentError: an activation was not computed; the message lists all of them.
                Also for an argument out of range; likewise in the methods below.
        """
        check_no_others("accumulated_resid", others)
        place = stacks.layer_of(layer, self._layers)
        names, labels = stacks.accumulated_resid(self._layers, place, incl_mid, mlp_input)
        self._require("accumulated_resid", names)
        with tidy("accumulated_resid") as scope:
            stack = stacks.stacked([self[name] for name in names])
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
        **others: Never,
    ) -> Labelled:
        """Stack the parts whose sum is the input of ``layer``: [N, B, T, D].

        Args:
            layer: from 0; None, -1 or the number of layers: the input of the head.
            mlp_input: whether the attention of ``layer`` is included: the input of its MLP.
            mode: "all", or the results of "attn" or "mlp" alone.
            apply_ln: whether each is centred and divided by the scale of the layer's input norm.
            incl_embeds: whether token and position embeddings are included.
            return_labels: whether to return a pair (stack, labels).
            **others: as of :meth:`accumulated_resid`.
        """
        check_no_others("decompose_resid", others)
        place = stacks.layer_of(layer, self._layers)
        names, labels = stacks.decompose_resid(self._layers, place, mlp_input, mode, incl_embeds)
        norm = [self._norm_point(place, mlp_input)] if apply_ln else []
        self._require("decompose_resid", [*names, *norm])
        with tidy("decompose_resid") as scope:
            stack = stacks.stacked([self[name] for name in names])
            if apply_ln:
                stack = self._scaled(stack, place, mlp_input)
            return scope.escape((stack, labels) if return_labels else stack)

    def stack_head_results(
        self,
        layer: int | None = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        **others: Never,
    ) -> Labelled:
        """Stack what each head before ``layer`` adds to the residual stream: [N, B, T, D].

        Computed from ``hook_z`` where ``hook_result`` was not kept.

        Args:
            layer: from 1; None, -1 or the number of layers: all heads.
            return_labels: whether to return a pair (stack, labels), "L0H0" for the first head.
            incl_remainder: whether the rest of the stream is the last component.
            apply_ln: as of :meth:`decompose_resid`.
            **others: as of :meth:`accumulated_resid`.
        """
        check_no_others("stack_head_results", others)
        place = integer("layer", stacks.layer_of(layer, self._layers), 1, self._layers)
        z = [f"blocks.{index}.attn.hook_z" for index in range(place)]
        needed = [each for each in z if each.replace("_z", "_result") not in self._tensors]
        needed += [f"blocks.{place - 1}.hook_resid_post"] if incl_remainder else []
        needed += [self._norm_point(place, False, needed)] if apply_ln else []
        self._require("stack_head_results", needed)
        backbone, parts, labels = self._lm().backbone, list[Tensor](), list[str]()
        with tidy("stack_head_results") as scope:
            for index in range(place):
                results = stacks.head_results(backbone, self._tensors, index)
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
        self, residual_stack: Tensor, tokens: Any, incorrect_tokens: Any = None, **others: Never
    ) -> Tensor:
        """Return what each component adds to the logits of ``tokens``: [N, B, T].

        Components are centred, divided by the scale of the final norm and multiplied by its weight
        and the head's row of a token (TransformerLens: with folded norms). So those of
        :meth:`decompose_resid` sum to the logit, up to the product of the norm's bias and the row.

        Args:
            residual_stack: [N, B, T, D], without a norm.
            tokens: a token, as text or id, for all positions; one for each row; or [B, T].
            incorrect_tokens: likewise, whose logits are subtracted.
            **others: as of :meth:`accumulated_resid`.

        Raises:
            InvalidArgumentError: no such token, or a text is not one token.
            ShapeError: shapes differ from those of the cache.
        """
        check_no_others("logit_attrs", others)
        self._require("logit_attrs", [self._norm_point(self._layers, False)])
        backbone = self._lm().backbone
        with tidy("logit_attrs") as scope:
            parts = self._scaled(residual_stack, self._layers, False)
            toward = stacks.directions(backbone, self._ids("tokens", tokens, parts[0]))
            if incorrect_tokens is not None:
                ids = self._ids("incorrect_tokens", incorrect_tokens, parts[0])
                toward = ops.sub(toward, stacks.directions(backbone, ids))
            return scope.escape(ops.sum(ops.mul(parts, toward), -1))

    def _norm_point(self, layer: int, mlp_input: bool, needed: Sequence[str] = ()) -> str:
        """Return the point that gives the scale of the norm of a layer's input.

        The scale, or the norm's input if that alone is known or ``needed`` anyway.
        """
        scale, normalized = stacks.input_norm(self._layers, layer, mlp_input)
        known = normalized in self._tensors or normalized in needed
        return normalized if known and scale not in self._tensors else scale

    def _scaled(self, stack: Any, layer: int, mlp_input: bool) -> Tensor:
        """Return ``stack``, centred and divided by the scale of the norm of a layer's input."""
        name, backbone = self._norm_point(layer, mlp_input), self._lm().backbone
        found = self[name]
        scale = found if name.endswith("hook_scale") else stacks.scale_of(backbone, found)
        return stacks.scaled(stack, scale, backbone.config.n_embd)

    def _ids(self, name: str, tokens: Any, like: Tensor) -> Tensor:
        """Return tokens as ids [B, T], for the batch and positions of ``like`` [B, T, D]."""
        return target_ids(self._lm(), name, tokens, *like.shape[:2])
