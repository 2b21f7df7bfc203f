"""Fixture: GPT-2's own tokenizer, built once."""

from __future__ import annotations

import pytest

from gpt2_wgpu.text import GPT2Tokenizer


@pytest.fixture(scope="session")
def gpt2() -> GPT2Tokenizer:
    return GPT2Tokenizer()
