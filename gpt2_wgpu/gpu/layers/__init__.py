"""What a transformer is made of: stored weights, fused kernels, the key/value cache, sampling.

Unlike ``ops`` these know layouts made for speed, so they are for models, not for users.
"""

from .attention import cached_attention
from .embedding import embed
from .kv_cache import KVCache
from .linear import linear, project_qkv
from .sampling import (
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    SamplingOptions,
    SamplingState,
    sample,
)
from .weights import Axis, Matrix, Raw, load_matrix, load_vector, random_normal, round_up

__all__ = [
    "FULL",
    "LIVE",
    "NOT_FINITE",
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
    "project_qkv",
    "random_normal",
    "round_up",
    "sample",
]
