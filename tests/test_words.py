"""Words that the prose of this repository avoids, with the standard term for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Pattern of a whole word, in lower case → what to write instead.
WORDS = {
    r"(who|whom|what)ever": "anyone, any, or leave it out",
    r"(no|any|some)body": "the caller, the user, or a passive",
    r"tells?|told": "report, say, show, distinguish",
    r"lies?|lay": "be, be stored",
    r"stands?": "be",
    r"likeliest": "most likely",
    r"under way": "in flight, running",
    r"known answers?": "self-test, known results",
    r"read[ -]limit": "peak read bandwidth",
    r"share of the possible": "bandwidth utilisation",
    r"doomed": "pending destroy",
    r"distrust(s|ed)?": "quarantine",
    r"mend(s|ed)?": "fixed",
    r"twins?": "async version, counterpart",
    r"refuse[sd]?": "reject",
    r"at hand": "available",
}
_AVOIDED = re.compile(r"\b(" + "|".join(WORDS) + r")\b", re.IGNORECASE)

# Folders and files whose prose is clean: patterns below the root. Extend it as others are cleaned.
CLEAN = (
    "*.md",
    ".ci/*",
    ".github/**/*.md",
    "Makefile",
    "pyproject.toml",
    "index.html",
    "benchmarks/README.md",
    "benchmarks/*.py",
    "benchmarks/peers/browser/*",
    "benchmarks/peers/native/*.py",
    "docs/**/*.md",
    "examples/*.py",
    "shaders/**/*.wgsl",
    "web/**/*.js",
    "web/**/*.css",
    "web/**/*.ts",
    "gpt2_wgpu/**/*.js",
    "gpt2_wgpu/*.py",
    "gpt2_wgpu/bench/*.py",
    "gpt2_wgpu/cli/*.py",
    "gpt2_wgpu/diagnostics/*.py",
    "gpt2_wgpu/integrations/*.py",
    "gpt2_wgpu/models/*.py",
    "gpt2_wgpu/nn/*.py",
    "gpt2_wgpu/samplers/*.py",
    "gpt2_wgpu/tensors/**/*.py",
    "gpt2_wgpu/text/*.py",
    "gpt2_wgpu/webgpu/**/*.py",
    "gpt2_wgpu/weights/*.py",
    "scripts/*.*",
    "training/*.py",
)
FILES = sorted({path for pattern in CLEAN for path in ROOT.glob(pattern)})
# Names in code, not prose: `file.tell()`, `read_limit` (`_` is part of a word, so it is one).
_CODE = re.compile(r"\.tell\(")


def avoided(text: str) -> list[str]:
    """The avoided words of a text, each with its line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for match in _AVOIDED.finditer(_CODE.sub("(", line)):
            instead = next(
                words
                for pattern, words in WORDS.items()
                if re.fullmatch(pattern, match[0], re.IGNORECASE)
            )
            found.append(f"line {number}: '{match[0]}' (instead: {instead})")
    return found


def test_avoided_words_are_found() -> None:
    assert avoided("a\nWhoever reads it is told") == [
        "line 2: 'Whoever' (instead: anyone, any, or leave it out)",
        "line 2: 'told' (instead: report, say, show, distinguish)",
    ]
    assert avoided("file.tell() of an intellect; test_it_is_refused; peak read bandwidth") == []


def test_every_pattern_has_files() -> None:
    assert not [pattern for pattern in CLEAN if not [*ROOT.glob(pattern)]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_avoids_them(path: Path) -> None:
    assert avoided(path.read_text(encoding="utf-8")) == []
