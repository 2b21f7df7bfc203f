"""What a transformer is made of: stored weights, fused kernels, the key/value cache, sampling.

Unlike ``ops`` these know layouts made for speed, so they are for models, not for users.
"""

from gpt2_wgpu.gpu.layers.attention import cached_attention
from gpt2_wgpu.gpu.layers.embedding import embed
from gpt2_wgpu.gpu.layers.kv_cache import KVCache
from gpt2_wgpu.gpu.layers.linear_layers import linear, project_qkv
from gpt2_wgpu.gpu.layers.losses import NO_TARGET, target_loss
from gpt2_wgpu.gpu.layers.sampling import (
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    SamplingOptions,
    SamplingState,
    sample,
)
from gpt2_wgpu.gpu.layers.weights import (
    Axis,
    Matrix,
    Raw,
    load_matrix,
    load_vector,
    part_sizes,
    random_normal,
    round_up,
    stored_words,
)

__all__ = [
    "FULL",
    "LIVE",
    "NOT_FINITE",
    "NO_TARGET",
    "RECENT",
    "STOPPED",
    "Axis",
    "KVCache",
    "Matrix",
    "Raw",
    "SamplingOptions",
    "SamplingState",
    "cached_attention",
    "embed",
    "linear",
    "load_matrix",
    "load_vector",
    "part_sizes",
    "project_qkv",
    "random_normal",
    "round_up",
    "sample",
    "stored_words",
    "target_loss",
]
