"""Counters and histograms in Prometheus's text format, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Histogram:
    """Histogram of seconds, with cumulative buckets."""

    def __init__(self, name: str, description: str) -> None:
        self._name, self._description = name, description
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text format."""
        yield from _head(self._name, "histogram", self._description)
        total = 0
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{self._name}_bucket{{le="{bound}"}} {total}'
        yield f"{self._name}_sum {self._sum!r}"
        yield f"{self._name}_count {total}"


class Metrics:
    """Measurements of one server."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()  # of completions, by status
        self.prompt_tokens = self.generated_tokens = 0
        self.first_token = Histogram(
            "gpt2_wgpu_first_token_seconds", "Time from a request to its first new token"
        )
        self.whole = Histogram("gpt2_wgpu_request_seconds", "Time of answered requests")

    def text(self, running: int, waiting: int) -> str:
        """Return all measurements; ``running`` and ``waiting`` are rows of now."""
        name = "gpt2_wgpu_requests_total"
        lines = [*_head(name, "counter", "Completions by HTTP status; 499: the client hung up")]
        lines += [f'{name}{{status="{code}"}} {n}' for code, n in sorted(self.requests.items())]
        values: Iterable[tuple[str, str, str, int]] = (
            ("rows_running", "gauge", "Rows that are generated now", running),
            ("rows_waiting", "gauge", "Rows that wait for a place", waiting),
            ("prompt_tokens_total", "counter", "Tokens of prompts", self.prompt_tokens),
            ("generated_tokens_total", "counter", "New tokens", self.generated_tokens),
        )
        for short, kind, description, value in values:
            name = f"gpt2_wgpu_{short}"
            lines += [*_head(name, kind, description), f"{name} {value}"]
        lines += [*self.first_token.lines(), *self.whole.lines()]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, description: str) -> tuple[str, str]:
    return f"# HELP {name} {description}", f"# TYPE {name} {kind}"
