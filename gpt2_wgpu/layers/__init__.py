"""Layers with the names and call signatures of ``keras_hub.layers``, in GPT-2's forms.

They run the functions of ``nn`` that the models use. ``gpt2_wgpu.GPT2Backbone`` offers its own:
``backbone.token_embedding``, ``backbone.transformer_layers`` and so on.
"""

from gpt2_wgpu.layers.attention_layer import CachedMultiHeadAttention
from gpt2_wgpu.layers.embedding_layers import (
    PositionEmbedding,
    ReversibleEmbedding,
    TokenAndPositionEmbedding,
)
from gpt2_wgpu.layers.masks import compute_causal_mask, merge_padding_and_attention_mask
from gpt2_wgpu.layers.normalization_layer import LayerNormalization
from gpt2_wgpu.layers.transformer_decoder import TransformerDecoder

__all__ = [
    "CachedMultiHeadAttention",
    "LayerNormalization",
    "PositionEmbedding",
    "ReversibleEmbedding",
    "TokenAndPositionEmbedding",
    "TransformerDecoder",
    "compute_causal_mask",
    "merge_padding_and_attention_mask",
]
