"""Words that the prose of this repository avoids, with the standard term for each."""

from __future__ import annotations

import re
from pathlib import Path

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

# What is searched: patterns below the root.
PLACES = (
    "*.md",
    "*.html",
    ".ci/*",
    ".github/**/*.md",
    "Makefile",
    "pyproject.toml",
    *(
        f"{folder}/**/*.{ending}"
        for folder, endings in {
            "benchmarks": "html js md py txt",
            "docs": "md",
            "examples": "ipynb py",
            "gpt2_wgpu": "js py",
            "scripts": "py",
            "shaders": "wgsl",
            "tests": "html js json mjs py txt",
            "training": "md py",
            "web": "css js ts",
        }.items()
        for ending in endings.split()
    ),
)
STORIES = {
    ROOT / "benchmarks" / "peers" / "models.py",
    *(ROOT / "tests" / "models" / "data").iterdir(),
    *(ROOT / "tests" / "parity" / "recorded").iterdir(),
    *(ROOT / "tests" / "text" / "data").iterdir(),
}
FILES = sorted(
    {path for pattern in PLACES for path in ROOT.glob(pattern)} - STORIES - {Path(__file__)}
)
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
    assert not [pattern for pattern in PLACES if not [*ROOT.glob(pattern)]]


def test_prose_avoids_them() -> None:
    found = {
        str(path.relative_to(ROOT)): words
        for path in FILES
        if (words := avoided(path.read_text(encoding="utf-8")))
    }
    assert found == {}
