"""Values of the hook points, from forward hooks of transformers' modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import checkpoints


def heads(x, count):
    return x.reshape(*x.shape[:-1], count, -1)


@checkpoints.without_gradients
def reference(model, ids, mask=None):
    """Logits, and each point's value by TransformerLens' name, in float32."""
    import torch

    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, given, found, name=name: seen.update(
                {name: (given[0], found[0] if isinstance(found, tuple) else found)}
            )
        )
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    seen_keys = None if mask is None else torch.tensor(mask)
    ids = torch.tensor(np.asarray(ids))
    out = model(ids, attention_mask=seen_keys, output_attentions=True)
    model.set_attn_implementation(before)
    for module in model.modules():
        module._forward_hooks.clear()
    seen = {
        name: tuple(each.numpy() for each in both)
        for name, both in seen.items()
        if all(isinstance(each, torch.Tensor) for each in both)
    }
    config, points = model.config, dict[str, Any]()
    points["hook_embed"] = seen["transformer.wte"][1]
    points["hook_pos_embed"] = np.broadcast_to(
        seen["transformer.wpe"][1], points["hook_embed"].shape
    )

    def norm(at, module):
        x, found = seen[module]
        variance = x.astype(float).var(-1, keepdims=True)
        points[f"{at}hook_scale"] = np.sqrt(variance + config.layer_norm_epsilon)
        layer_norm = model.get_submodule(module)
        gain, shift = (each.numpy() for each in (layer_norm.weight, layer_norm.bias))
        points[f"{at}hook_normalized"] = (found - shift) / gain

    for layer in range(config.n_layer):
        at, module = f"blocks.{layer}.", f"transformer.h.{layer}."
        points[f"{at}hook_resid_pre"] = seen[f"{module}ln_1"][0]
        norm(f"{at}ln1.", f"{module}ln_1")
        qkv = np.split(seen[f"{module}attn.c_attn"][1], 3, -1)
        q, k, v = (heads(x, config.n_head) for x in qkv)
        scale = q.shape[-1] ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= layer + 1
        z, attn_out = seen[f"{module}attn.c_proj"]
        weight = model.transformer.h[layer].attn.c_proj.weight.numpy()
        points |= {f"{at}attn.hook_{name}": x for name, x in zip("qkv", (q, k, v), strict=True)}
        points[f"{at}attn.hook_attn_scores"] = np.einsum("bthd,bshd->bhts", q, k) * scale
        points[f"{at}attn.hook_pattern"] = out.attentions[layer].numpy()
        points[f"{at}attn.hook_z"] = heads(z, config.n_head)
        points[f"{at}attn.hook_result"] = np.einsum(
            "bthd,hdm->bthm",
            heads(z, config.n_head),
            weight.reshape(config.n_head, -1, z.shape[-1]),
        )
        points[f"{at}hook_attn_out"] = attn_out
        points[f"{at}hook_resid_mid"] = seen[f"{module}ln_2"][0]
        norm(f"{at}ln2.", f"{module}ln_2")
        points[f"{at}mlp.hook_pre"] = seen[f"{module}mlp.c_fc"][1]
        points[f"{at}mlp.hook_post"], points[f"{at}hook_mlp_out"] = seen[f"{module}mlp.c_proj"]
        points[f"{at}hook_resid_post"] = seen[f"{module[:-1]}"][1]
    norm("ln_final.", "transformer.ln_f")
    return out.logits.numpy(), points
