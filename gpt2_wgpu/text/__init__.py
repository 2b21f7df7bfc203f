"""Tokenizers, packing, prompt preprocessing and streaming; imports no model and no GPU code."""

from __future__ import annotations

from gpt2_wgpu.text.byte_pair_tokenizer import BytePairTokenizer
from gpt2_wgpu.text.causal_lm_preprocessor import GPT2CausalLMPreprocessor
from gpt2_wgpu.text.gpt2_tokenizer import GPT2Tokenizer
from gpt2_wgpu.text.preprocessor import GPT2Preprocessor
from gpt2_wgpu.text.start_end_packer import StartEndPacker
from gpt2_wgpu.text.streaming import StopTextMatcher, StreamingDetokenizer, TokenReader

__all__ = [
    "BytePairTokenizer",
    "GPT2CausalLMPreprocessor",
    "GPT2Preprocessor",
    "GPT2Tokenizer",
    "StartEndPacker",
    "StopTextMatcher",
    "StreamingDetokenizer",
    "TokenReader",
]
