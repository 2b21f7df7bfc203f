"""Measuring a model on the device at hand: speed, and what share of the possible it is.

>>> from gpt2_wgpu import benchmark
>>> report = benchmark.measure(benchmark.Plan(benchmark.Preset("fairytales")))
>>> print(benchmark.as_markdown(report))

No figure comes without proof that what was timed computes what it should: each timed run has to
repeat tokens that the eager, uncached forward pass has confirmed (``reference.py``), else
``BenchmarkError`` tells which token differs. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

from gpt2_wgpu.bench.markdown import as_markdown
from gpt2_wgpu.bench.measured_models import Preset, RandomModel
from gpt2_wgpu.bench.measuring import Plan, measure, measure_async

__all__ = ["Plan", "Preset", "RandomModel", "as_markdown", "measure", "measure_async"]
