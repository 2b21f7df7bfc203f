"""Verdict: the targets, what was measured, and whether it passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]
Value = float | None


@dataclass(frozen=True)
class Target:
    """A target for f16, batch 1 and 124M where ``what`` names nothing else."""

    what: str
    limit: float
    at_most: bool
    value: Callable[[Report], Value]


def as_rows(report: Report) -> list[dict[str, Any]]:
    """Return a row for each target: "pass", "fail", "not measured" or "not a GPU"."""
    found = [_correctness(report)]
    for target in _targets(report):
        value = target.value(report)
        if value is None:
            verdict = "not measured"
        elif report["software_adapter"]:
            verdict = "not a GPU"
        else:
            right = value <= target.limit if target.at_most else value >= target.limit
            verdict = "pass" if right else "fail"
        sign = "≤" if target.at_most else "≥"
        found.append(
            {
                "what": target.what,
                "target": f"{sign} {target.limit:g}",
                "value": value,
                "verdict": verdict,
            }
        )
    return found


def _correctness(report: Report) -> dict[str, Any]:
    part = report["parts"].get("correctness", {})
    if "wrong" in report or kernel_tests_failed(report):
        verdict = "fail"
    elif {"self_test", "products", "tests"} <= part.keys():
        complete = isinstance(part["products"], dict) and isinstance(part["tests"], dict)
        complete = complete and part["tests"]["passed"] > 0 and not part["tests"]["cut"]
        verdict = "pass" if complete and "cut" not in part else "in part"
    else:
        verdict = "not measured"
    return {"what": "kernels and model compute right", "target": "all", "value": None} | {
        "verdict": verdict
    }


def kernel_tests_failed(report: Report) -> bool:
    """Return whether a test of the kernels failed."""
    tests = report["parts"].get("correctness", {}).get("tests")
    return isinstance(tests, dict) and bool(tests["failed"])


def _targets(report: Report) -> Iterator[Target]:
    discrete = report["adapter"].get("adapter_type") == "DiscreteGPU"
    share = 0.55 if discrete else 0.9
    kind = "discrete GPU" if discrete else "integrated or Apple GPU"
    yield Target(f"bandwidth utilisation, {kind}", share, False, _utilisation("small"))
    yield Target("bandwidth utilisation, XL", 0.8, False, _utilisation("large"))
    yield Target("tokens/s, times those of PyTorch eager", 5.0, False, _against(_eager))
    yield Target("tokens/s, times those of PyTorch with CUDA graphs", 1.0, False, _against(_graphs))
    yield Target("prefill of 512, times PyTorch's time", 2.0, True, _prefill)
    yield Target("tokens/s of 16 rows, times those of 8", 1.7, False, _batches)
    yield Target("step at the last position, times that at position 10", 1.2, True, _position)
    yield Target("choosing a token by top-p alone, times by top-k 40", 1.15, True, _top_p)


def row(report: Report, size: str, dtype: str, batch: int) -> dict[str, Any] | None:
    """Return the row of the decode part, if it was measured."""
    name = report["plan"][size]
    rows = report["parts"].get("decode", {}).get("rows", [])
    same = (one for one in rows if (one["model"], one["dtype"]) == (name, dtype))
    return next((one for one in same if one.get("batch") == batch), None)


def rate(report: Report, size: str, dtype: str, batch: int) -> Value:
    """Return tokens per second, all rows together."""
    found = row(report, size, dtype, batch)
    return None if found is None else batch / float(found["seconds_per_step"])


def _utilisation(size: str) -> Callable[[Report], Value]:
    def value(report: Report) -> Value:
        found = row(report, size, "f16", 1)
        return None if found is None else found.get("bandwidth_utilisation")

    return value


def _eager(torch: dict[str, Any]) -> Value:
    plain: Value = torch.get("eager_tokens_per_second")
    return torch.get("transformers_tokens_per_second", plain)


def _graphs(torch: dict[str, Any]) -> Value:
    return torch.get("graph_tokens_per_second")


def _torch(report: Report) -> dict[str, Any]:
    """Return PyTorch's figures in f16 on the GPU; none on a CPU."""
    found = report["parts"].get("torch", {})
    return found.get("f16", {}) if found.get("device") in ("cuda", "mps") else {}


def _against(theirs: Callable[[dict[str, Any]], Value]) -> Callable[[Report], Value]:
    def value(report: Report) -> Value:
        ours, other = rate(report, "small", "f16", 1), theirs(_torch(report))
        return ours / other if ours and other else None

    return value


def _prefill(report: Report) -> Value:
    tokens = report["parts"].get("torch", {}).get("prefill_tokens")
    theirs = _torch(report).get("long_prefill_seconds")
    for one in report["parts"].get("prefill", {}).get("rows", []):
        if theirs and (one["model"], one["tokens"]) == (report["plan"]["small"], tokens):
            return float(one["seconds"]) / float(theirs)
    return None


def _batches(report: Report) -> Value:
    few, many = (rate(report, "small", "f16", batch) for batch in (8, 16))
    return many / few if few and many else None


def _position(report: Report) -> Value:
    """Of the cache format that the library uses by default on a GPU."""
    found = report["parts"].get("decode", {}).get("positions", {})
    steps = found.get(report["plan"]["cache_dtype"])
    if not isinstance(steps, list) or len(steps) < 2:
        return None
    return float(steps[-1]["seconds_per_step"]) / float(steps[0]["seconds_per_step"])


def _top_p(report: Report) -> Value:
    found = report["parts"].get("samplers", {})
    times = [
        found.get(name, {}).get("choosing_seconds_per_step") for name in ("top-p 0.9", "top-k 40")
    ]
    return times[0] / times[1] if all(times) else None
