"""Decompositions of the residual stream, with the meaning that they have in TransformerLens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from gpt2_wgpu.layers.embedding_layers import no_rows
from gpt2_wgpu.layers.packed_weights import pad_last_axis
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.hooked_blocks import centred_and_scale
from gpt2_wgpu.models.hooks import applied
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tidy
from gpt2_wgpu.tensors.ops.operands import full
from gpt2_wgpu.validation import integer

MODES = ("all", "attn", "mlp")


def layer_of(layer: int | None, layers: int) -> int:
    """Return the layer whose input is meant, from 0; ``layers``, None and -1: that of the head."""
    if layer in (None, -1):
        return layers
    try:
        return integer("layer", layer, 0, layers)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{error}; None and -1 are the input of the head") from None


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape as one with a new first axis."""
    return ops.concat([ops.expand_dims(part, 0) for part in parts])


def accumulated_resid(
    layers: int, layer: int, incl_mid: bool, mlp_input: bool
) -> tuple[list[str], list[str]]:
    """Return the names of the points, and their labels; see ``ActivationCache``."""
    names, labels = list[str](), list[str]()
    for index in range(min(layer + 1, layers)):
        names.append(f"blocks.{index}.hook_resid_pre")
        labels.append(f"{index}_pre")
        if (incl_mid and index < layer) or (mlp_input and index == layer):
            names.append(f"blocks.{index}.hook_resid_mid")
            labels.append(f"{index}_mid")
    if layer == layers:
        names.append(f"blocks.{layers - 1}.hook_resid_post")
        labels.append("final_post")
    return names, labels


def decompose_resid(
    layers: int, layer: int, mlp_input: bool, mode: str, incl_embeds: bool
) -> tuple[list[str], list[str]]:
    """Return the names of the points, and their labels; see ``ActivationCache``."""
    if mode not in MODES:
        raise InvalidArgumentError(f"mode must be one of {', '.join(MODES)}, not {shown(mode)}")
    names, labels = list[str](), list[str]()
    if incl_embeds:
        names, labels = ["hook_embed", "hook_pos_embed"], ["embed", "pos_embed"]
    for index in range(layer + (mlp_input and layer < layers)):
        for part in ("attn", "mlp"):
            if mode in ("all", part) and (index < layer or part == "attn"):
                names.append(f"blocks.{index}.hook_{part}_out")
                labels.append(f"{index}_{part}_out")
    if not names:
        raise InvalidArgumentError(f"decompose_resid: no component before layer {layer}")
    return names, labels


def input_norm(layers: int, layer: int, mlp_input: bool) -> tuple[str, str]:
    """Return the names of the scale of a layer's input norm, and of what it normalizes."""
    if layer == layers:
        return "ln_final.hook_scale", f"blocks.{layers - 1}.hook_resid_post"
    if mlp_input:
        return f"blocks.{layer}.ln2.hook_scale", f"blocks.{layer}.hook_resid_mid"
    return f"blocks.{layer}.ln1.hook_scale", f"blocks.{layer}.hook_resid_pre"


def scaled(stack: Any, scale: Tensor, width: int) -> Tensor:
    """Return the ``stack`` [C, ..., D] minus its means, divided by the ``scale`` [..., 1].

    InvalidArgumentError if it is no tensor, ShapeError for another shape or ``width`` D.
    """
    if not hasattr(stack, "ndim"):
        pair = isinstance(stack, tuple) and len(stack) == 2 and isinstance(stack[0], Tensor)
        remedy = ": return_labels=True gives a pair, pass its first" if pair else ""
        raise InvalidArgumentError(
            f"a residual stack is a tensor [components, batch, pos, d_model], not {shown(stack)}"
            f"{remedy}"
        )
    expected = (*scale.shape[:-1], width)
    if stack.ndim != scale.ndim + 1 or tuple(stack.shape[1:]) != expected:
        raise ShapeError(
            "a residual stack has the shape [components, batch, pos, d_model], of batch, pos and "
            f"d_model {expected}, not {tuple(stack.shape)}"
        )
    return ops.div(ops.sub(stack, ops.mean(stack, -1, keepdims=True)), scale)


def scale_of(backbone: GPT2Backbone, x: Tensor) -> Tensor:
    """Return the scale [..., 1] of a norm of the residual stream x [..., D]."""
    return centred_and_scale(x, backbone.config.layer_norm_epsilon)[1]


def final_norm(backbone: GPT2Backbone, stack: Tensor) -> Tensor:
    """Return the final norm of each component, by its own mean and scale."""
    backbone.check_usable()
    with applied(()):
        return backbone.final_norm(pad_last_axis(stack))[..., : backbone.config.n_embd]


def head_results(backbone: GPT2Backbone, tensors: Mapping[str, Tensor], layer: int) -> Tensor:
    """Return the results [B, T, H, D] of a layer's heads, of those kept or of ``hook_z``."""
    found = tensors.get(f"blocks.{layer}.attn.hook_result")
    if found is not None:
        return found
    backbone.check_usable()
    z = tensors[f"blocks.{layer}.attn.hook_z"]
    weight, config = backbone.weights.blocks[layer].attn_c_proj.weight, backbone.config
    mixed = pad_last_axis(z).view((*z.shape[:2], weight.in_features))
    return nn.project_heads(mixed, weight, config.n_head)[..., : config.n_embd]


def directions(backbone: GPT2Backbone, ids: Tensor) -> Tensor:
    """Return for each of ``ids`` [B, T] the head's row times the final norm's weight: [B, T, D]."""
    backbone.check_usable()
    weights, width = backbone.weights, backbone.config.n_embd
    with tidy("directions") as scope:
        nothing = no_rows(weights.lm_head.in_features, ids.device)
        start = full(ids.device, (ids.shape[0],), 0, "uint32")
        rows = nn.embed(ids, start, weights.lm_head, nothing)[..., :width]
        gain = weights.ln_f.weight.view((weights.ln_f.weight.size,))[:width]
        return scope.escape(ops.mul(rows, gain))
