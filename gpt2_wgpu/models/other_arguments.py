"""Arguments of TransformerLens that methods here do not have, and what there is instead."""

from __future__ import annotations

from collections.abc import Mapping

from gpt2_wgpu.errors import InvalidArgumentError

_AROUND = "apply them by `with lm.hooks(hooks):` around the call"
_END = "hooks end with their call or block, and nothing else is kept"
_LOSSES = "lm.logprobs gives minus the loss of each token"

_OF_ALL = {
    "names_filter": "use names",
    "fwd_hooks": "use hooks",
    "bwd_hooks": "there are no gradients, so no hooks of them",
    "reset_hooks_end": _END,
    "clear_contexts": _END,
    "pos_slice": "use an index of the tensors, as in cache[name][:, -1:]",
    "remove_batch_dim": "use an index of the tensors, as in cache[name][0]",
    "stop_at_layer": "use names with return_type=None, after the last of which nothing is computed",
    "prepend_bos": "use token ids, or lm.preprocessor.add_start_token",
    "loss_per_token": _LOSSES,
    "return_type": f"the result is always logits; {_LOSSES}",
    "expand_neurons": "each MLP is one component, cache['post', layer] has its neurons",
}
_OF_STACKS = {
    "pos_slice": "index the result, [component, batch, pos, ...], as in stack[:, :, -1:]",
    "batch_slice": "index the result, [component, batch, pos], as in attributions[:, 0]",
    "has_batch_dim": "stacks always have the axis of the batch",
}
_OF_METHOD = {
    "run_with_cache": {"hooks": _AROUND, "fwd_hooks": _AROUND},
    "accumulated_resid": _OF_STACKS,
    "decompose_resid": _OF_STACKS,
    "stack_head_results": _OF_STACKS,
    "logit_attrs": _OF_STACKS,
}


def check_no_others(method: str, others: Mapping[str, object]) -> None:
    """Raise InvalidArgumentError if there are arguments that ``method`` does not have."""
    for name in others:
        remedy = {**_OF_ALL, **_OF_METHOD.get(method, {})}.get(name)
        end = f": {remedy}" if remedy else ""
        raise InvalidArgumentError(f"{method} has no argument {name}{end}")
