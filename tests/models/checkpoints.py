"""Checkpoints with random weights from transformers, and transformers' results."""

from __future__ import annotations

from functools import wraps

import numpy as np


def without_gradients(function):
    """``torch.no_grad`` as a decorator that imports PyTorch only when the function is called."""

    @wraps(function)
    def run(*args, **kwargs):
        import torch

        with torch.no_grad():
            return function(*args, **kwargs)

    return run


def make_model(seed=0, **config):
    """A GPT-2 whose logits are far from constant.

    With transformers' default initializer_range of 0.02 a random GPT-2 repeats one token, and
    biases of zero would hide a bias that is not added.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(1)  # several wait for each other on busy cores: seconds per text
    torch.manual_seed(seed)
    config = {"initializer_range": 0.1, "bos_token_id": None, "eos_token_id": None} | config
    model = GPT2LMHeadModel(GPT2Config(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "ln_" in name:
                parameter.normal_(1, 0.1)
    return model


def save(model, directory, dtype="float32", **kwargs):
    """The checkpoint on disk, with weights stored as ``dtype``, the name of a PyTorch type."""
    import torch

    model.to(getattr(torch, dtype)).save_pretrained(directory, **kwargs)
    model.float()
    return directory


@without_gradients
def logits_of(model, ids, mask=None):
    """float32 logits [B, T, V]."""
    import torch

    mask = None if mask is None else torch.tensor(np.asarray(mask), dtype=torch.long)
    return model(torch.tensor(np.asarray(ids)), attention_mask=mask).logits.numpy()


@without_gradients
def greedy(model, ids, new_tokens):
    """Greedy continuation of one prompt, and the smallest lead of a best logit over the second.

    Token equality means something only while that lead exceeds the numerical difference.
    """
    import torch

    ids = list(ids)
    cache, margin = None, np.inf
    step = torch.tensor([ids])
    for _ in range(new_tokens):
        with torch.inference_mode():
            out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = torch.topk(out.logits[0, -1], 2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
        step = torch.tensor([ids[-1:]])
    return ids, margin
