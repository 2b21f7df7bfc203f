"""Markdown tables of a report; the first has the format of llama-bench."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Report = dict[str, Any]
_WORDS = ("model", "size", "backend", "dtype", "cache", "test", "kernel")  # left-aligned columns
_INSPECTED = ("odds_after_edit_seconds", "attention_of_layer_seconds", "lens_seconds")


def as_markdown(report: Report) -> str:
    """Format a report as Markdown tables.

    Args:
        report: from :func:`gpt2_wgpu.bench.measure`.

    Returns:
        The text.
    """
    blocks = [_heading(report), _speeds(report), _steps(report), _limit(report), _kernels(report)]
    if any(row["positions"] for row in report["rows"]):
        blocks.append(_positions(report))
    if any(row["inspection"] for row in report["rows"]):
        blocks.append(_inspection(report))
    return "\n\n".join(blocks) + "\n"


def _heading(report: Report) -> str:
    versions, load = report["versions"], report["load"]
    software = " (SOFTWARE adapter: this is the CPU's speed)" if report["software_adapter"] else ""
    others = load["foreign_cpu"]
    busy = [
        *([f"load average {load['loadavg'][0]:.2f}"] if load["loadavg"] else []),
        *([] if others is None else [f"other programs kept {others:.2f} cores busy"]),
    ]
    lines = [
        f"{report['hardware']}{software}, {report['adapter']['backend']}, {report['driver']}",
        f"gpt2-wgpu {versions['gpt2-wgpu']}, wgpu {versions['wgpu']}, Python "
        f"{versions['python']}, {versions['system']}, {report['date']}",
        "; ".join(busy) or "CPU use of other processes unknown",
    ]
    return "  \n".join(lines)


def _speeds(report: Report) -> str:
    work = report["work"]
    prompt, new = work["prompt_tokens"], work["new_tokens"]

    def lines() -> Iterator[Sequence[str]]:
        for row in report["rows"]:
            same = (
                work["model"],
                f"{work['parameters'] / 1e6:.1f} M",
                row["backend"],
                row["dtype"],
                row["cache_dtype"],
                str(row["batch"]),
            )
            prefill = [row["batch"] * prompt / seconds for seconds in row["prefill_seconds"]]
            yield (*same, f"pp{prompt}", *_spread(prefill))
            yield (*same, f"tg{new}", *_spread(row["decode_tokens_per_second"]))

    return _table(
        ("model", "size", "backend", "dtype", "cache", "batch", "test", "tokens/s", "from .. to"),
        lines(),
    )


def _steps(report: Report) -> str:
    def lines() -> Iterator[Sequence[str]]:
        for row in report["rows"]:
            nbytes = row["weight_bytes_per_step"] + row["cache_bytes_per_step"]
            yield (
                row["dtype"],
                str(row["batch"]),
                f"{row['time_to_first_token_seconds'] * 1e3:.1f}",
                f"{row['seconds_per_step'] * 1e3:.2f}",
                f"{row['host_seconds_per_step'] * 1e6:.0f}",
                f"{row['host_cpu_seconds_per_step'] * 1e6:.0f}",
                f"{row['dispatches_per_step']:.1f}",
                f"{row['submits_per_step']:.2f}",
                f"{nbytes / 1e6:.1f}",
                f"{row['bytes_per_second'] / 1e9:.2f}",
                f"{row['bandwidth_utilisation']:.0%}",
            )

    times = ("first token, ms", "step, ms", "host, µs/step", "its CPU time, µs/step")
    work = ("dispatches/step", "submits/step", "MB read/step", "GB/s", "of peak bandwidth")
    return _table(("dtype", "batch", *times, *work), lines())


def _limit(report: Report) -> str:
    limit = report["peak_read_bandwidth"]
    lines = (
        (
            rate["kernel"],
            f"{rate['workgroups']} x {rate['threads']}",
            f"{rate['bytes_per_second'] / 1e9:.2f}",
        )
        for rate in limit["kernels"]
    )
    size = f"{limit['bytes_read'] / 2**20:.0f} MiB"
    return _table((f"reading {size}", "threads", "GB/s"), lines)


def _kernels(report: Report) -> str:
    def lines() -> Iterator[Sequence[str]]:
        for row in report["rows"]:
            decode, prefill = row["kernels"]["decode"], row["kernels"]["prefill"]
            for kernel in [*decode, *(name for name in prefill if name not in decode)]:
                yield (
                    row["dtype"],
                    str(row["batch"]),
                    kernel,
                    *_kernel_times(decode.get(kernel)),
                    *_kernel_times(prefill.get(kernel)),
                )

    columns = ("dtype", "batch", "kernel", "per step", "GPU ms/step")
    return _table((*columns, "in the prefill", "GPU ms"), lines())


def _kernel_times(found: Report | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    seconds = found["seconds"]
    return f"{found['dispatches']:.4g}", "?" if seconds is None else f"{seconds * 1e3:.3f}"


def _positions(report: Report) -> str:
    lines = (
        (
            row["dtype"],
            row["cache_dtype"],
            str(row["batch"]),
            str(at["position"]),
            f"{at['seconds_per_step'] * 1e3:.2f}",
        )
        for row in report["rows"]
        for at in row["positions"]
    )
    return _table(("dtype", "cache", "batch", "position", "step, ms"), lines)


def _inspection(report: Report) -> str:
    def lines() -> Iterator[Sequence[str]]:
        for row in report["rows"]:
            if found := row["inspection"]:
                times = (found[name] for name in _INSPECTED)
                milliseconds = (f"{statistics.median(each) * 1e3:.1f}" for each in times)
                yield (row["dtype"], *milliseconds, f"{found['details_ratio']:.2f}")

    columns = ("odds after an edit, ms", "attention of a layer, ms", "lens of 12 tokens, ms")
    return _table(("dtype", *columns, "stream with top_logprobs=20 / without"), lines())


def _spread(values: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.2f}", f"{min(values):.2f} .. {max(values):.2f}"


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [columns, ["---" if name in _WORDS else "--:" for name in columns], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
