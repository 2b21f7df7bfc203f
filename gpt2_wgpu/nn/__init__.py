"""Transformer layers: stored weights, fused kernels, the KV cache, sampling.

Unlike ``ops`` they use memory layouts optimised for speed and are internal to models.
"""

from gpt2_wgpu.nn.attention import AttentionPartials, cached_attention
from gpt2_wgpu.nn.attention_parts import (
    LOWEST_SCORE,
    attention_scores,
    mix_values,
    project_heads,
    store_keys_and_values,
)
from gpt2_wgpu.nn.cache_pages import PAGE, cleared_page, load_page, new_page, page_words, save_page
from gpt2_wgpu.nn.cache_rows import reorder_rows, select_rows
from gpt2_wgpu.nn.choice_options import Penalties, SamplingOptions
from gpt2_wgpu.nn.embedding import embed
from gpt2_wgpu.nn.head import penalize, project_logits
from gpt2_wgpu.nn.kernel_choice import choose_kernels, kernels_are_chosen
from gpt2_wgpu.nn.kv_cache import KVCache, check_cache_dtype, default_cache_dtype
from gpt2_wgpu.nn.linear_layers import Norm, fold_norm, linear, project_qkv
from gpt2_wgpu.nn.losses import NO_TARGET, divergence, target_loss, token_odds
from gpt2_wgpu.nn.matrix import (
    Axis,
    Matrix,
    Raw,
    load_matrix,
    load_vector,
    part_sizes,
    random_normal,
    round_up,
    rounds_activations,
    stored_words,
)
from gpt2_wgpu.nn.row_moves import move_rows
from gpt2_wgpu.nn.sampling import (
    ALL_EXCLUDED,
    FULL,
    LIVE,
    NOT_FINITE,
    RECENT,
    STOPPED,
    History,
    SamplingState,
    advance,
    bias_sequences,
    exclude_tokens,
    sample,
)
from gpt2_wgpu.nn.similarity import append_hidden, similarity
from gpt2_wgpu.nn.step_odds import odds_of, odds_width, record_odds, without_penalties
from gpt2_wgpu.nn.token_rules import NO_RULES, TokenRules
from gpt2_wgpu.nn.transformer_block import Block, LayerNorm, Linear, attend, feed_forward

__all__ = [
    "ALL_EXCLUDED",
    "FULL",
    "LIVE",
    "LOWEST_SCORE",
    "NOT_FINITE",
    "NO_RULES",
    "NO_TARGET",
    "PAGE",
    "RECENT",
    "STOPPED",
    "AttentionPartials",
    "Axis",
    "Block",
    "History",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Matrix",
    "Norm",
    "Penalties",
    "Raw",
    "SamplingOptions",
    "SamplingState",
    "TokenRules",
    "advance",
    "append_hidden",
    "attend",
    "attention_scores",
    "bias_sequences",
    "cached_attention",
    "check_cache_dtype",
    "choose_kernels",
    "cleared_page",
    "default_cache_dtype",
    "divergence",
    "embed",
    "exclude_tokens",
    "feed_forward",
    "fold_norm",
    "kernels_are_chosen",
    "linear",
    "load_matrix",
    "load_page",
    "load_vector",
    "mix_values",
    "move_rows",
    "new_page",
    "odds_of",
    "odds_width",
    "page_words",
    "part_sizes",
    "penalize",
    "project_heads",
    "project_logits",
    "project_qkv",
    "random_normal",
    "record_odds",
    "reorder_rows",
    "round_up",
    "rounds_activations",
    "sample",
    "save_page",
    "select_rows",
    "similarity",
    "store_keys_and_values",
    "stored_words",
    "target_loss",
    "token_odds",
    "without_penalties",
]
