"""A tiny model, with which thousands of texts take seconds, and memory counters."""

from __future__ import annotations

import gc

import gpt2_wgpu as gw
from gpt2_wgpu.nn import row_moves

CONTEXT = 48
ENDLESS = {"stop_token_ids": None, "max_new_tokens": 24}  # of a text that no token ends
TIMEOUT_S = 60  # seconds after which a hanging thread is a failure
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2 writes these as they are


def tokenizer():
    """One token a byte, and the end token."""
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    letters = [chr(byte) for byte in PRINTABLE] + [chr(256 + i) for i in range(len(others))]
    vocabulary = {letter: index for index, letter in enumerate([*letters, "<|endoftext|>"])}
    return gw.GPT2Tokenizer(vocabulary, [])


def backbone(device=None, seed=1):
    return gw.GPT2Backbone(257, 2, 2, 16, 32, max_sequence_length=CONTEXT, device=device, seed=seed)


def model(device=None, seed=1):
    preprocessor = gw.GPT2CausalLMPreprocessor(tokenizer(), CONTEXT)
    lm = gw.GPT2CausalLM(backbone(device, seed), preprocessor)
    lm.compile(sampler="greedy")
    return lm


def packed(prompts, length):
    """Prompts of ids as ``generate`` takes them."""
    return {
        "token_ids": [prompt + [0] * (length - len(prompt)) for prompt in prompts],
        "padding_mask": [[i < len(prompt) for i in range(length)] for prompt in prompts],
    }


def text_of(lm, prompts=((1, 2, 3), (4,)), length=12):
    """The ids that the model writes after ``prompts``."""
    inputs = packed([list(prompt) for prompt in prompts], length)
    return ids_of(lm.generate(inputs, stop_token_ids=None))


def ids_of(generated):
    """Rows of ids as lists; ``generate`` gives arrays where there is NumPy."""
    return [list(row) for row in generated["token_ids"]]


def counters(device, *, collect=True):
    """What lives on ``device``: tensors, buffers, bytes asked for, bytes taken, bytes by kind."""
    if collect:
        gc.collect()
    info = gw.memory(device)
    return (
        info.num_tensors, info.num_buffers, info.num_bytes, info.num_bytes_in_gpu, info.by_kind,
        info.num_scopes,
    )  # fmt: skip


def record_lost(monkeypatch):
    """A list that names every tensor which only the garbage collector freed."""
    lost = []
    monkeypatch.setattr(gw.Tensor, "_warn_of_leak", lambda tensor: lost.append(str(tensor)))
    return lost


def fail_moves(monkeypatch):
    """Let the first and third move of rows find no memory; returns a list, an item per move."""
    allocate, attempts = row_moves.empty, []

    def empty(*args):
        attempts.append(args)
        if len(attempts) in (1, 3):
            raise gw.errors.OutOfGPUMemoryError("no memory for a move of rows")
        return allocate(*args)

    monkeypatch.setattr(row_moves, "empty", empty)
    return attempts


def new(values=(1.0, 2.0, 3.0)):
    return gw.tensor(list(values))
