"""Mutation testing: makes one small change at a time and runs the tests that cover it.

    .venv-test/bin/python scripts/mutants.py --sample 100 --seed 1      # or: make mutants
    .venv-test/bin/python scripts/mutants.py --sample 20 --only shaders/sample.wgsl

Prints one line per mutant: killed (a test failed or timed out), survived, or equivalent (listed
with a reason in tests/equivalent_mutants.txt). Exits with status 1 if fewer than 90 % of the
non-equivalent ones were killed. Works on a copy of the tree.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
COPIED = ("gpt2_wgpu", "models", "scripts", "shaders", "tests", "pyproject.toml")
GOAL = 0.9
TIMEOUT_S = 240

_LINEAR = (
    "gpu/nn/test_kernel_bounds gpu/nn/test_linear gpu/nn/test_quantization"
    " gpu/nn/test_linear_choice"
)
_ARRAYS = "gpu/tensors/test_ops_arrays gpu/tensors/test_ops_elementwise gpu/tensors/test_tensor"
_PLAIN = ("activate", "binary", "fill", "gather", "square_root", "unpack")
_CHOICES = "gpu/nn/test_choices"
_ATTENTION = "gpu/nn/test_attention_flash gpu/nn/test_cached_attention"
# Mutated files → tests that cover them (tests/*.py), fastest first. The first match counts.
COVERED_BY = {
    "shaders/advance.wgsl": "gpu/nn/test_advance",
    "shaders/penalize.wgsl": "gpu/nn/test_advance",
    "shaders/include/advance_row.wgsl": "gpu/nn/test_advance gpu/nn/test_sampling"
    " gpu/nn/test_own_options",
    "shaders/sample.wgsl": "gpu/nn/test_kernel_bounds gpu/nn/test_sampling",
    **dict.fromkeys(["shaders/advance.wgsl", "shaders/penalize.wgsl"], "gpu/nn/test_advance"),
    "shaders/include/random.wgsl": "gpu/nn/test_sampling",
    "shaders/include/rank.wgsl": "gpu/nn/test_sampling",
    "shaders/include/sample_nucleus.wgsl": "gpu/nn/test_nucleus",
    "shaders/include/sample_*.wgsl": "gpu/nn/test_kernel_bounds gpu/nn/test_sampling"
    " gpu/nn/test_nucleus",
    "shaders/include/maxima_and_counts.wgsl": "gpu/nn/test_sampling",
    "shaders/include/store_logits.wgsl": "gpu/nn/test_sampling",
    "shaders/embed.wgsl": "gpu/nn/test_embedding gpu/nn/test_kernel_bounds",
    "shaders/layer_norm*.wgsl": "gpu/tensors/test_layer_norm",
    "shaders/include/reduce.wgsl": "gpu/tensors/test_layer_norm gpu/tensors/test_ops_reductions",
    **dict.fromkeys(
        [f"shaders/{name}.wgsl" for name in ("attention_mix", "attention_scores", "write_cache")],
        "gpu/nn/test_attention_parts",
    ),
    "gpt2_wgpu/nn/attention_parts.py": "gpu/nn/test_attention_parts",
    "shaders/attention*.wgsl": f"gpu/tensors/test_ops_attention {_ATTENTION}",
    "shaders/include/cache_*.wgsl": _ATTENTION,
    "shaders/include/attention_*.wgsl": _ATTENTION,
    **dict.fromkeys(
        [f"shaders/{name}.wgsl" for name in ("cast", "compare", "select")],
        "gpu/tensors/test_ops_conditions",
    ),
    "shaders/reduce_axis.wgsl": "gpu/tensors/test_ops_aggregation",
    "shaders/mask_scores.wgsl": "gpu/tensors/test_ops_attention",
    "shaders/softmax*.wgsl": "gpu/tensors/test_ops_reductions",
    "shaders/top_k*.wgsl": "gpu/tensors/test_ops_reductions",
    "shaders/target_loss.wgsl": "gpu/nn/test_losses",
    "shaders/token_odds.wgsl": "gpu/nn/test_losses",
    "shaders/record_odds.wgsl": "gpu/nn/test_step_odds",
    "shaders/divergence.wgsl": "gpu/nn/test_losses",
    "shaders/load_weight.wgsl": "gpu/nn/test_load_weight",
    "shaders/random_normal.wgsl": "gpu/nn/test_load_weight",
    "shaders/include/checkpoint_element.wgsl": "gpu/nn/test_load_weight",
    "shaders/include/source_*.wgsl": "gpu/nn/test_load_weight",
    "shaders/include/rounded_*.wgsl": "gpu/nn/test_quantization",
    "shaders/quantize_weight.wgsl": "gpu/nn/test_quantization",
    "shaders/matmul*.wgsl": "gpu/tensors/test_ops_matmul",
    "shaders/stream_*.wgsl": "gpu/diagnostics/test_bandwidth",
    "shaders/include/stream_*.wgsl": "gpu/diagnostics/test_bandwidth",
    "shaders/include/axes.wgsl": "gpu/tensors/test_ops_arrays gpu/tensors/test_strides",
    "shaders/include/packed_*.wgsl": _ARRAYS,
    "shaders/include/scalar_*.wgsl": _ARRAYS,
    "shaders/include/activation.wgsl": f"gpu/tensors/test_ops_elementwise {_LINEAR}",
    "shaders/linear_*.wgsl": _LINEAR,
    "shaders/include/*.wgsl": _LINEAR,
    "shaders/quantize_activations_cpu.wgsl": _LINEAR,
    **dict.fromkeys(
        [f"shaders/{name}.wgsl" for name in _PLAIN],
        _ARRAYS,
    ),
    "shaders/bias_sequences.wgsl": "gpu/nn/test_exclude_tokens",
    "shaders/exclude_tokens.wgsl": "gpu/nn/test_exclude_tokens",
    "shaders/reorder_cache.wgsl": "gpu/nn/test_cache_rows",
    "shaders/similarity.wgsl": "gpu/nn/test_similarity",
    "shaders/append_hidden.wgsl": "gpu/nn/test_similarity",
    "shaders/strided_copy.wgsl": "gpu/tensors/test_ops_arrays gpu/tensors/test_strides",
    "gpt2_wgpu/webgpu/buffer_pool.py": "webgpu/test_buffer_pool memory/test_budget",
    "gpt2_wgpu/webgpu/capabilities.py": "webgpu/test_default_budget gpu/webgpu/test_device"
    " gpu/nn/test_linear_choice",
    "gpt2_wgpu/nn/sampling.py": "gpu/nn/test_row_moves gpu/nn/test_own_options"
    " gpu/nn/test_sampling",
    "gpt2_wgpu/nn/choice_options.py": "gpu/nn/test_sampling",
    "gpt2_wgpu/nn/embedding.py": "gpu/nn/test_embedding",
    "gpt2_wgpu/nn/losses.py": "gpu/nn/test_losses",
    "gpt2_wgpu/nn/step_odds.py": "gpu/nn/test_step_odds",
    "gpt2_wgpu/nn/attention.py": f"{_CHOICES} {_ATTENTION}",
    "gpt2_wgpu/nn/kv_cache.py": _ATTENTION,
    "gpt2_wgpu/nn/cache_rows.py": "gpu/nn/test_cache_rows",
    "gpt2_wgpu/nn/similarity.py": "gpu/nn/test_similarity",
    "gpt2_wgpu/nn/head.py": "gpu/nn/test_sampling",
    "gpt2_wgpu/nn/matrix.py": "gpu/nn/test_load_weight"
    " gpu/nn/test_quantization models/test_quantized",
    "gpt2_wgpu/nn/*.py": f"{_CHOICES} {_LINEAR}",
    "gpt2_wgpu/tensors/ops/*.py": f"{_CHOICES} gpu/tensors/test_ops_arrays"
    " gpu/tensors/test_ops_elementwise gpu/tensors/test_ops_matmul gpu/tensors/test_ops_reductions"
    " gpu/tensors/test_ops_attention gpu/tensors/test_layer_norm gpu/tensors/test_strides"
    " gpu/tensors/test_ops_aggregation gpu/tensors/test_ops_conditions gpu/nn/test_linear_choice",
    "gpt2_wgpu/samplers/beam*.py": "samplers/test_beam_sampler models/test_beam_search"
    " models/test_search_calls",
    "gpt2_wgpu/samplers/contrastive*.py": "samplers/test_contrastive_sampler"
    " models/test_search_calls"
    " models/test_contrastive_search models/test_contrastive_rules",
    "gpt2_wgpu/samplers/speculative*.py": "samplers/test_speculative_sampler"
    " models/test_speculative",
    "gpt2_wgpu/samplers/*.py": "samplers/test_samplers",
    **dict.fromkeys(
        [f"gpt2_wgpu/models/{name}.py" for name in ("hook_points", "hooks", "hooked_blocks")],
        "models/test_hooks models/test_hook_tensors models/test_hooked_generation"
        " models/test_run_with_cache",
    ),
    "gpt2_wgpu/models/residual_stacks.py": "models/test_residual_stacks",
    "gpt2_wgpu/models/logit_lens.py": "models/test_residual_stacks",
    "gpt2_wgpu/models/target_tokens.py": "models/test_residual_stacks",
    "gpt2_wgpu/models/config.py": "models/test_config models/test_config_refusals",
    "gpt2_wgpu/models/weight_sizes.py": "models/test_quantized memory/test_budget"
    " models/test_conversion",
    "gpt2_wgpu/models/evaluation.py": "models/test_evaluation",
    **dict.fromkeys(
        [
            f"gpt2_wgpu/models/{name}.py"
            for name in ("batch_row", "continuous_batch", "row_group", "row_plan", "row_prefill")
        ],
        "models/test_row_prefill models/test_continuous_batch",
    ),
    "gpt2_wgpu/weights/header.py": "weights/test_header_attacks weights/test_safetensors",
    "gpt2_wgpu/strict_json.py": "test_strict_json weights/test_header_attacks"
    " weights/test_checkpoint",
    "gpt2_wgpu/text/merge_table.py": "text/test_merge_table text/test_tokenizer_faults",
    "gpt2_wgpu/text/vocabulary.py": "text/test_tokenizer_faults"
    " text/test_gpt2_tokenizer text/test_byte_pair_tokenizer",
}


def main(argv: list[str] | None = None) -> int:
    """Run a sample of mutants; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=100, metavar="N", help="how many (100)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    parser.add_argument("--only", nargs="+", metavar="FILE", help="mutate these files alone")
    options = parser.parse_args(argv)
    every = list(_all_mutants(options.only))
    chosen = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    print(f"{len(chosen)} of {len(every)} mutants, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        counts = _run_all(_copy(Path(directory)), chosen)
    valued = counts["killed"] + counts["survived"]
    rate = counts["killed"] / max(1, valued)
    print(f"{counts['killed']} of {valued} killed ({rate:.0%}), {counts['equivalent']} equivalent")
    return 0 if rate >= GOAL else 1


def covering(path: str) -> list[str]:
    """Return the test files that cover a mutated file; empty if it is not mutated."""
    for pattern, tests in COVERED_BY.items():
        if fnmatch(path, pattern):
            return [f"tests/{name}.py" for name in dict.fromkeys(tests.split())]
    return []


def _all_mutants(only: list[str] | None) -> Iterator[Mutant]:
    for path in sorted([*ROOT.glob("shaders/**/*.wgsl"), *ROOT.glob("gpt2_wgpu/**/*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if covering(name) and (only is None or name in only):
            yield from mutants(name, path.read_text(encoding="utf-8"))


def _copy(directory: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.part")
            shutil.copytree(source, directory / name, ignore=ignored)
        else:
            shutil.copy2(source, directory / name)
    return directory


def _run_all(copy: Path, chosen: list[Mutant]) -> dict[str, int]:
    listed = {} if not EQUIVALENT.exists() else _listed(EQUIVALENT.read_text(encoding="utf-8"))
    sound: set[str] = set()
    counts = dict.fromkeys(("killed", "survived", "equivalent"), 0)
    for index, mutant in enumerate(chosen):
        begun = time.monotonic()
        if reason := listed.get((mutant.path, mutant.code, mutant.change)):
            verdict = "equivalent"
        else:
            if mutant.path not in sound:
                _require_sound(copy, mutant.path)
                sound.add(mutant.path)
            verdict, reason = _verdict(copy, mutant, index)
        counts[verdict] += 1
        took = time.monotonic() - begun
        print(f"{verdict:10} {took:5.1f} s  {mutant}  {reason}", flush=True)
    return counts


def _listed(text: str) -> dict[tuple[str, str, str], str]:
    """Parse lines "path | code | change | reason" to (path, code, change) → reason."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = [[field.strip() for field in line.split(" | ")] for line in lines]
    # The code may contain " | ": path is first, change and reason are last.
    return {(row[0], " | ".join(row[1:-2]), row[-2]): row[-1] for row in rows}


def _require_sound(copy: Path, path: str) -> None:
    if output := _failure(copy, path):
        sys.exit(f"the tests of {path} fail without a mutation:\n{output}")


def _verdict(copy: Path, mutant: Mutant, index: int) -> tuple[str, str]:
    target = copy / mutant.path
    source = target.read_text(encoding="utf-8")
    before = target.stat()
    try:
        target.write_text(mutant.applied(source), encoding="utf-8")
        # Bytecode caches are keyed by size and mtime in seconds: each mutant gets its own second.
        os.utime(target, (before.st_mtime + 2 * index + 2,) * 2)
        output = _failure(copy, mutant.path)
    finally:
        target.write_text(source, encoding="utf-8")
        os.utime(target, (before.st_mtime,) * 2)
    return ("killed", output.strip().splitlines()[-1][:100]) if output else ("survived", "")


def _failure(copy: Path, path: str) -> str:
    """Return pytest's output if the tests of ``path`` fail; "" if they pass."""
    arguments = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", *covering(path)]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "pytest", *arguments]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, text=True, capture_output=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no end after {TIMEOUT_S} s"
    return "" if done.returncode == 0 else done.stdout + done.stderr or "failed"


if __name__ == "__main__":
    sys.exit(main())
