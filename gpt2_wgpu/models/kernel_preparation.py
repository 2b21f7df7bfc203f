"""Kernels of a model, asked for before its weights are there.

A browser compiles them beside other work, so they are ready when the weights are.
"""

from __future__ import annotations

from dataclasses import replace

from gpt2_wgpu import nn
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.default_dtype import likely_dtype
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_weights import OpenWeights
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.webgpu import Device
from gpt2_wgpu.webgpu.paper_device import PaperDevice


async def prepare_kernels(
    device: Device,
    config: GPT2Config,
    open_weights: OpenWeights,
    options: nn.SamplingOptions,
    prompt: int,
    length: int,
    dtype: str | None = None,
    cache_dtype: str | None = None,
) -> None:
    """Ask for the kernels that load a model, and for those of a text: prompt and decode step.

    A model of one layer, as all are alike, is loaded and run on a `PaperDevice`.

    Args:
        device: the device.
        config: the model's sizes.
        open_weights: the weights' source, which says their formats.
        options: how tokens are sampled.
        prompt: number of tokens of the prompt.
        length: largest number of tokens of the text.
        dtype: weight format; None: the default.
        cache_dtype: as in `GPT2Backbone`.

    Raises:
        ShaderError: a kernel does not compile; in browsers the next read raises it.
        WeightsError: the weights cannot be read, or are not of this model.
    """
    dtype = dtype or await likely_dtype(device)
    paper = PaperDevice.of(device)
    paper.pipelines = device.pipelines
    backbone = await GPT2Backbone.from_weights(
        replace(config, n_layer=1), open_weights, dtype, cache_dtype, paper
    )
    try:
        with tidy("prepare kernels"):
            cache = backbone.new_cache(1, min(nn.round_up(length, 16), config.n_positions))
            if prompt > 1:  # the step computes the last
                first = backbone.as_uint32([0])
                backbone.blocks(backbone.as_uint32([[0] * (prompt - 1)]), cache, first)
            row = nn.History([0] * prompt, prompt)
            state = nn.SamplingState.create(paper, [row], [length], options, [], config.vocab_size)
            nn.exclude_tokens(state)
            nn.bias_sequences(state)
            x = backbone.blocks(state.token, cache, state.position)
            nn.sample(backbone.head(x, state), state)
    finally:
        backbone.dispose()
