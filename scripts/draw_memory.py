"""Chart of docs/memory.svg: the GPU memory of a model from load to disposal, by ``gw.profile``.

    python scripts/draw_memory.py [-m fairytales] [-o docs/memory.svg]

Loads a model, streams a text, disposes the model, and draws live bytes by kind. The horizontal axis
counts allocations and frees, not time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from xml.sax.saxutils import escape

import gpt2_wgpu as gw

PICTURE = Path(__file__).parents[1] / "docs" / "memory.svg"
KINDS = {
    "weights": "#4c78a8",
    "cache": "#f58518",
    "workspace": "#54a24b",
    "staging": "#b279a2",
    "parameters": "#9d755d",
}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 300, 70, 20, 60


def life_of_a_model(model: str) -> None:
    with gw.GPT2CausalLM.from_preset(model) as lm:
        lm.compile(sampler=gw.samplers.TopK(k=5, seed=1))
        for _ in lm.stream("Once upon a time", max_new_tokens=60):
            pass


def draw(timeline: list[tuple[float, dict[str, int]]]) -> str:
    """A stacked area chart as SVG, one column for each change."""
    highest = max(sum(live.values()) for _, live in timeline)
    right, bottom = WIDTH - 20, HEIGHT - BOTTOM

    def x(index: int) -> float:
        return LEFT + (right - LEFT) * index / max(1, len(timeline) - 1)

    def y(nbytes: float) -> float:
        return bottom - (bottom - TOP) * nbytes / highest

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    below = [0] * len(timeline)
    for kind, colour in KINDS.items():
        above = [low + live[kind] for low, (_, live) in zip(below, timeline, strict=True)]
        top = [f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(above)]
        base = [f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(below)]
        parts.append(f'<polygon fill="{colour}" points="{" ".join([*top, *reversed(base)])}"/>')
        below = above
    for share in (0, 0.5, 1):
        label = f"{highest * share / 2**20:.1f} MiB"
        parts.append(f'<text x="{LEFT - 8}" y="{y(highest * share) + 4:.0f}" text-anchor="end">')
        parts.append(f"{label}</text>")
    for place, (kind, colour) in enumerate(KINDS.items()):
        left = LEFT + 155 * place
        peak = max(live[kind] for _, live in timeline) / 2**20
        parts.append(f'<rect x="{left}" y="{HEIGHT - 24}" width="12" height="12" fill="{colour}"/>')
        text = escape(f"{kind}, {peak:.1f} MiB")
        parts.append(f'<text x="{left + 17}" y="{HEIGHT - 13}">{text}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 38}" text-anchor="middle">'
        "allocations and releases, in order: load · prompt · text · dispose</text></svg>"
    )
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="fairytales")
    parser.add_argument("-o", "--output", type=Path, default=PICTURE)
    args = parser.parse_args()
    seen = gw.profile(lambda: life_of_a_model(args.model))
    args.output.write_text(draw(seen.timeline))
    print(
        f"{args.output}: peak {seen.peak_bytes_in_gpu:,} bytes, left over {seen.new_bytes_in_gpu:,}"
    )


if __name__ == "__main__":
    main()
