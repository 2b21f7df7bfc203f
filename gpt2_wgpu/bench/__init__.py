"""Benchmark of a model on a device: speed and bandwidth utilisation.

>>> from gpt2_wgpu import bench
>>> report = bench.measure(bench.Plan(bench.Preset("fairytales")))
>>> print(bench.as_markdown(report))

Figures require verified outputs: the tokens of each timed run must equal tokens that the eager,
uncached forward pass has confirmed (``reference.py``), else ``BenchmarkError`` names the first
difference. docs/benchmarks.md defines each figure.
"""

from __future__ import annotations

from gpt2_wgpu.bench.markdown import as_markdown
from gpt2_wgpu.bench.measured_models import Preset, RandomModel
from gpt2_wgpu.bench.measuring import Plan, measure, measure_async

__all__ = ["Plan", "Preset", "RandomModel", "as_markdown", "measure", "measure_async"]
