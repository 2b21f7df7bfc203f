"""Recorder of the run that the page shows before a model is loaded: `python scripts/record_run.py`.

Writes web/page/recorded-run.json and the text in index.html. The calls are those that the page
makes of a loaded model; a test records again and compares.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.integrations.web_worker import Model

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "web" / "page" / "recorded-run.json"
PAGE = ROOT / "index.html"

MODEL, DTYPE = "fairytales", "float32"
PROMPT = "Once upon a time"
SETTINGS = {"seed": 7, "maxTokens": 40}
ALTERNATIVES = 10  # of each token
LENS_TOP, LENS_TOKENS, STEPS = 5, 8, 32  # as in web/page/inspector/inspector.js
DIGITS = 4


async def record(lm: gw.GPT2CausalLM) -> dict[str, Any]:
    """Return the run, as web/page/recorded.js reads it."""
    model = Model(MODEL, lm)
    given = {**SETTINGS, "details": True, "topLogprobs": ALTERNATIVES}
    (details,) = await model.generate([PROMPT], given)
    text = PROMPT + details["text"]
    length = len(model.encode(text))
    found = await model.inspect(
        text,
        {
            "attention": list(range(lm.backbone.num_layers)),
            "lens": LENS_TOP,
            "at": list(range(-min(LENS_TOKENS, length), 0)),
            "time": STEPS,
        },
    )
    pieces = {str(each["id"]): each["piece"] for row in details["top"] for each in row}
    pieces |= found["pieces"]
    return {
        "model": MODEL,
        "dtype": DTYPE,
        "adapter": lm.device.info.name,
        "seed": SETTINGS["seed"],
        "prompt": PROMPT,
        "text": details["text"],
        "odds": {
            "ids": details["tokenIds"],
            "pieces": details["pieces"],
            "logprobs": rounded(details["logprobs"]),
            "ranks": details["ranks"],
            "entropies": rounded(details["entropies"]),
            "topIds": [[each["id"] for each in row] for row in details["top"]],
            "topLogprobs": [rounded(each["logprob"] for each in row) for row in details["top"]],
        },
        "texts": found["texts"],
        "pieces": dict(sorted(pieces.items(), key=lambda item: int(item[0]))),
        "attention": {
            "heads": found["attention"]["heads"],
            "length": found["attention"]["length"],
            "patterns": triangles(found["attention"]),
        },
        "lens": {
            "layers": found["lens"]["layers"],
            "positions": list(found["lens"]["positions"]),
            "count": found["lens"]["count"],
            "ids": list(found["lens"]["ids"]),
            "probabilities": rounded(found["lens"]["probabilities"]),
            "divergences": rounded(found["lens"]["divergences"]),
            "ranks": list(found["lens"]["ranks"]),
        },
        "time": found["time"]
        | {
            "seconds": found["time"]["seconds"] and [round(t, 7) for t in found["time"]["seconds"]],
            "bytes": list(found["time"]["bytes"]),
        },
    }


def rounded(values: Any) -> list[float]:
    """Return numbers with few digits."""
    return [round(value, DIGITS) for value in values]


def triangles(attention: dict[str, Any]) -> list[str]:
    """Return the weights of each layer that are not masked, [head, query, key <= query], in base64.

    A byte is 255 times the square root of a weight: small weights keep their digits.
    """
    heads, length, patterns = (attention[name] for name in ("heads", "length", "patterns"))
    found = []
    for layer in range(len(attention["layers"])):
        levels = bytearray()
        for row in range(layer * heads * length, (layer + 1) * heads * length):
            weights = patterns[row * length : row * length + row % length + 1]
            levels += bytes(round(255 * min(1.0, weight) ** 0.5) for weight in weights)
        found.append(base64.b64encode(levels).decode())
    return found


def with_text(page: str, run: dict[str, Any]) -> str:
    """Return index.html with the run's label and text."""
    label = f"Recorded example: {run['model']}, {run['dtype']}, seed {run['seed']}"
    label, prompt, text = (html.escape(each, False) for each in (label, run["prompt"], run["text"]))
    new = (
        f'id="story-label">{label}</p><p class="text" id="text">'
        f'<span class="prompt">{prompt}</span><span>{text}</span></p>'
    )
    changed, count = re.subn(r'id="story-label">.*?</p><p .*?</p>', lambda _: new, page)
    if count != 1:
        raise ValueError(f"index.html has {count} places for the recorded text, not one")
    return changed


def main() -> None:
    lm = gw.GPT2CausalLM.from_preset(MODEL, dtype=DTYPE)
    run = asyncio.run(record(lm))
    lm.dispose()
    RUN.write_text(json.dumps(run, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    PAGE.write_text(with_text(PAGE.read_text("utf-8"), run), "utf-8")
    print(f"{RUN.relative_to(ROOT)}: {RUN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
