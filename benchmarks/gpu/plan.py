"""Plan of a measurement: models, rows, tokens, and a time budget for each part."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpt2_wgpu.bench import RandomModel

DTYPES = ("float32", "float16", "q8", "q4")
BUDGETS = {  # seconds; together less than 8 minutes
    "adapter": 10,
    "correctness": 110,
    "micro": 15,
    "decode": 150,
    "prefill": 30,
    "samplers": 20,
    "switches": 45,
    "torch": 90,
}
BROWSER_BUDGET = 240  # seconds, on top of these, with ``--browser``
# WGSL promises cos() to 2^-11 and no better; the test asks for what precise adapters give.
LESS_PRECISE = (
    "tests/gpu/nn/test_load_weight.py::test_random_values_follow_the_formula_and_the_distribution"
)


@dataclass(frozen=True)
class Plan:
    """What is measured. ``decode``: (model, dtype, rows), the most important first."""

    small: RandomModel
    large: RandomModel
    decode: tuple[tuple[RandomModel, str, tuple[int, ...]], ...]
    prompt_tokens: int = 128
    new_tokens: int = 64
    repeats: int = 3
    prefill: tuple[int, ...] = (12, 33, 128, 512)
    cache_dtypes: tuple[str, ...] = ("float32", "float16")  # timed at several positions
    sweep_rows: tuple[int, ...] = (*range(1, 10), 16, 17, 33, 64, 128, 512)
    sweep_shapes: tuple[tuple[int, int], ...] = ((769, 768), (130, 1600), (63, 24))
    switch_shapes: tuple[tuple[int, int], ...] = ((2304, 768), (768, 3072), (6400, 1600))
    switch_rows: tuple[int, ...] = (1, 8, 16, 32)
    tests: tuple[str, ...] = (
        "tests/gpu/nn/test_linear.py",
        "tests/gpu/nn/test_cached_attention.py",
        "tests/gpu/nn/test_attention_flash.py",
        "tests/gpu/nn/test_sampling.py",
        "tests/gpu/nn/test_embedding.py",
        "tests/gpu/nn/test_quantization.py",
        "tests/gpu/nn/test_load_weight.py",
        "tests/gpu/nn",
        "tests/gpu/tensors",
    )
    test_options: tuple[str, ...] = ("--maxfail=20", f"--deselect={LESS_PRECISE}")
    gaps: tuple[int, int] = (64, 1024)  # dispatches
    browser_dtypes: tuple[str, ...] = ("float16", "q4")
    browser_rows: tuple[int, ...] = (1, 8)
    transformers: bool = True  # measure its `generate` as well, where PyTorch is
    budgets: dict[str, int] = field(default_factory=lambda: {**BUDGETS, "browser": BROWSER_BUDGET})


def full() -> Plan:
    """Return the plan for a GPU."""
    small, large = RandomModel.parse("124M"), RandomModel.parse("1558M")
    return Plan(
        small,
        large,
        decode=(
            (small, "float16", (1, 8, 16, 32, 64)),
            (large, "float16", (1, 8)),
            (small, "q8", (1, 8, 16, 32, 64)),
            (small, "q4", (1, 8, 16, 32, 64)),
            (small, "float32", (1, 8, 16, 32, 64)),
            (large, "q4", (1, 8)),
        ),
    )


def tiny() -> Plan:
    """Return a plan of seconds that runs every line: for tests, also on software adapters."""
    small, large = RandomModel.parse("1x64"), RandomModel.parse("2x64")
    return Plan(
        small,
        large,
        decode=((small, "float16", (1, 8, 16)), (large, "float16", (1,)), (small, "q4", (1,))),
        prompt_tokens=6,
        new_tokens=6,
        repeats=1,
        prefill=(12,),
        cache_dtypes=("float16",),
        sweep_rows=(1, 9),
        sweep_shapes=((33, 24),),
        switch_shapes=((64, 64),),
        switch_rows=(1, 16),
        tests=("tests/gpu/nn/test_embedding.py",),
        test_options=("-k", "test_against_numpy and 8-1", "--maxfail=1"),
        gaps=(8, 64),
        browser_dtypes=("float16",),
        browser_rows=(1,),
        transformers=False,
        budgets=dict.fromkeys((*BUDGETS, "browser"), 600),  # a busy machine is slow, not wrong
    )


PLANS = {"full": full, "tiny": tiny}
