"""Part 9: the same decoding in browsers, on the same GPU (only with ``--browser``)."""

from __future__ import annotations

from benchmarks.gpu.browser.measure import measure

__all__ = ["measure"]
