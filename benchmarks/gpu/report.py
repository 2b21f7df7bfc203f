"""The report: JSON for programs, Markdown for people (docs/benchmarks.md documents the keys)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.switches import hints

FORMAT = 1
RESULTS = Path(__file__).parents[1] / "results"

Report = dict[str, Any]


def name_of(report: Report) -> str:
    """Return the file name of a report, without its end: "gpu-" and the adapter."""
    slug = re.sub(r"[^a-z0-9]+", "-", str(report["hardware"]).lower()).strip("-")
    return f"gpu-{slug[:60]}-{report['adapter']['backend'].lower()}"


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write both files; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    both = tuple(folder / f"{name_of(report)}.{end}" for end in ("json", "md"))
    both[0].write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    both[1].write_text(as_markdown(report), encoding="utf-8")
    return both[0], both[1]


def as_markdown(report: Report) -> str:
    """Return the tables."""
    blocks = [*_heading(report)]
    if "wrong" in report:
        blocks.append(f"**Wrong results, so no speed is shown:** {report['wrong']}")
    blocks.append(_verdict(report))
    parts = report["parts"]
    tables = {
        "correctness": _correctness,
        "micro": _micro,
        "decode": _decode,
        "prefill": _prefill,
        "samplers": _samplers,
        "switches": _switches,
        "torch": _torch,
        "browser": _browser,
    }
    for name, table in tables.items():
        if name in parts:
            blocks.append(f"## {name.capitalize()}")
            blocks += [f"Cut {parts[name]['cut']}."] if "cut" in parts[name] else []
            blocks += [f"Error: {parts[name]['error']}"] if "error" in parts[name] else []
            blocks += table(parts[name])
    return "\n\n".join(block for block in blocks if block) + "\n"


def _heading(report: Report) -> Iterator[str]:
    software = " (SOFTWARE adapter: this is the CPU's speed)" if report["software_adapter"] else ""
    yield f"# {report['hardware']}{software}"
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    seconds = {name: part.get("seconds", 0.0) for name, part in report["parts"].items()}
    yield (
        f"{report['adapter']['backend']}, {report['driver']}; {versions}; {report['date']}.  \n"
        f"Plan: {report['plan']['name']}, {sum(seconds.values()):.0f} s ("
        + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
        + ")."
    )


def _verdict(report: Report) -> str:
    lines = [
        (
            row["what"],
            row["target"],
            "" if row["value"] is None else f"{row['value']:.2f}",
            row["verdict"],
        )
        for row in report["verdict"]
    ]
    return table(("f16, 1 row, 124M unless named", "target", "measured", "verdict"), lines)


def _correctness(part: Report) -> Iterator[str]:
    if "self_test" in part:
        failed = part["self_test"]["failed"]
        yield f"Self-test: {part['self_test']['checks']} checks, {len(failed)} failed."
    if isinstance(products := part.get("products"), dict):
        yield (
            f"{products['products']} products equal NumPy's; largest error of float products "
            f"{products['largest_error']:.2g} of the terms."
        )
    elif "products" in part:
        yield f"Products: {part['products']}."
    if isinstance(tests := part.get("tests"), dict):
        cut = " (cut: time ran out)" if tests["cut"] else ""
        yield f"Tests of the kernels: {tests['passed']} passed, {len(tests['failed'])} failed{cut}."
    elif "tests" in part:
        yield f"Tests of the kernels: {part['tests']}."
    if "compile" in part:
        found = part["compile"]
        slowest = "; ".join(f"{name} {s * 1e3:.0f} ms" for name, s in found["slowest"].items())
        yield (
            f"{found['pipelines']} pipelines compiled in {found['seconds']:.2f} s (a driver's "
            f"cache may have had some). Slowest: {slowest}."
        )


def _micro(part: Report) -> Iterator[str]:
    lines = []
    if "read_bytes_per_second" in part:
        lines.append(("streaming read", f"{part['read_bytes_per_second'] / 1e9:.1f} GB/s"))
    if "gap_seconds" in part:
        lines.append(("dispatch that depends on the last", f"{part['gap_seconds'] * 1e6:.2f} µs"))
    if "submit_and_readback_seconds" in part:
        microseconds = part["submit_and_readback_seconds"] * 1e6
        lines.append(("submit and readback of 4 bytes", f"{microseconds:.0f} µs"))
    yield table(("", ""), lines)


def _decode(part: Report) -> Iterator[str]:
    rows = part.get("rows", [])
    lines = []
    for row in rows:
        if "error" in row:
            lines.append((row["model"], row["dtype"], row["error"], *[""] * 5))
            continue
        share = row.get("bandwidth_utilisation")
        lines.append(
            (
                row["model"],
                row["dtype"],
                str(row["batch"]),
                f"{row['batch'] / row['seconds_per_step']:.1f}",
                f"{row['seconds_per_step'] * 1e3:.3f}",
                f"{row['host_seconds_per_step'] * 1e6:.0f}",
                f"{row['dispatches_per_step']:.0f}",
                "?" if share is None else f"{share:.0%}",
            )
        )
    columns = ("model", "weights", "rows", "tokens/s", "step, ms", "host, µs", "dispatches")
    yield table((*columns, "of peak read bandwidth"), lines)
    lines = [
        (
            row["model"],
            one["dtype"],
            one["kernel"],
            " x ".join(map(str, one["shape"])),
            f"{one['dispatches_per_step']:g}",
            "?" if one["seconds"] is None else f"{one['seconds'] * 1e6:.1f}",
            "" if one["bytes_per_second"] is None else f"{one['bytes_per_second'] / 1e9:.0f}",
        )
        for row in rows
        for one in row.get("shapes", [])
    ]
    yield (
        table(("model", "weights", "kernel", "shape", "a step", "µs each", "GB/s"), lines)
        if lines
        else ""
    )
    lines = [
        (cache, str(at["position"]), f"{at['seconds_per_step'] * 1e3:.3f}")
        for cache, found in part.get("positions", {}).items()
        for at in (found if isinstance(found, list) else [])
    ]
    yield table(("cache", "position", "step, ms"), lines) if lines else ""


def _prefill(part: Report) -> Iterator[str]:
    lines = [
        (
            row["model"],
            str(row["tokens"]),
            f"{row['seconds'] * 1e3:.2f}",
            f"{row['host_seconds'] * 1e3:.2f}",
            f"{row['first_run_seconds'] * 1e3:.1f}",
            f"{row['operations_per_second'] / 1e12:.3f}",
        )
        for row in part.get("rows", [])
    ]
    columns = ("model", "prompt", "first token, ms", "host, ms", "first run, ms", "TFLOP/s")
    yield table(columns, lines)


def _samplers(part: Report) -> Iterator[str]:
    lines = []
    for name, found in part.items():
        if isinstance(found, dict):
            alone = found["choosing_seconds_per_step"]
            lines.append(
                (
                    name,
                    f"{found['seconds_per_step'] * 1e3:.3f}",
                    "?" if alone is None else f"{alone * 1e6:.1f}",
                )
            )
    yield table(("sampler", "step, ms", "kernels that choose, µs"), lines)


def _switches(part: Report) -> Iterator[str]:
    found = {name: one for name, one in part.items() if isinstance(one, dict) and "seconds" in one}
    settings = list(dict.fromkeys(key for one in found.values() for key in one["seconds"]))
    lines = [
        (
            name,
            *(
                f"{one['seconds'][key] * 1e6:.1f}" if key in one["seconds"] else ""
                for key in settings
            ),
        )
        for name, one in found.items()
    ]
    yield table(("f16 product, µs", *settings), lines)
    yield "\n".join(f"- {hint}" for hint in hints(part))


def _torch(part: Report) -> Iterator[str]:
    if "torch" in part:
        yield f"PyTorch {part['torch']} on {part.get('name', part.get('device'))}."
    names = {
        "eager_tokens_per_second": "plain PyTorch, eager, tokens/s",
        "graph_tokens_per_second": "plain PyTorch, CUDA graph, tokens/s",
        "graph_equal_tokens": "share of tokens equal to eager's",
        "transformers_tokens_per_second": "transformers' generate, tokens/s",
    }
    lines = [
        (
            what,
            *(
                f"{part[dtype][key]:.2f}" if key in part.get(dtype, {}) else ""
                for dtype in ("f16", "f32")
            ),
        )
        for key, what in names.items()
    ]
    for key, tokens in (("prefill_seconds", "short"), ("long_prefill_seconds", "long")):
        times = [part.get(dtype, {}).get(key) for dtype in ("f16", "f32")]
        lines.append((f"{tokens} prefill, ms", *(f"{t * 1e3:.2f}" if t else "" for t in times)))
    yield table(("", "f16", "f32"), lines) if "f16" in part else ""


def _browser(part: Report) -> Iterator[str]:
    found = {name: one for name, one in part.items() if isinstance(one, dict)}
    for name, one in found.items():
        software = " (SOFTWARE adapter)" if one.get("software_adapter") else ""
        yield f"{name}: {one.get('user_agent', '?')}; {one.get('hardware', '?')}{software}."
        yield f"{name}: {one['error']}" if "error" in one else ""
    lines = [
        (
            name,
            row["dtype"],
            str(row["batch"]),
            f"{row['batch'] / row['seconds_per_step']:.1f}",
            f"{row['seconds_per_step'] * 1e3:.3f}",
            f"{row['host_seconds_per_step'] * 1e6:.0f}",
            f"{row['time_to_first_token_seconds'] * 1e3:.1f}",
            f"{row['bandwidth_utilisation']:.0%}",
        )
        for name, one in found.items()
        for row in one.get("rows", [])
    ]
    columns = ("browser", "weights", "rows", "tokens/s", "step, ms", "host, µs", "prefill, ms")
    yield table((*columns, "of peak read bandwidth"), lines) if lines else ""


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
