"""Files that the documents name exist, and so do the targets of their links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md", "benchmarks/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # it names what was
)
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w.-]+\.(?:py|wgsl|toml))`")
_LINK = re.compile(r"\]\(([^)\s:#]+)[^)\s:]*\)")
# Made by a build or the user, or in the user's cache directory.
_ELSEWHERE = re.compile(
    r"(dist|lite|pyodide|static|wheels|gpt2-wgpu|~|\.venv)/.*|owner/name|[a-z]*\.json"
    r"|web/(gpu\.js|first-kernels\.bin)"
)


def exists(name: str, document: Path) -> bool:
    """Whether a path is one of the repository, of the package, or beside the document."""
    package, shaders = ROOT / "gpt2_wgpu", ROOT / "shaders"
    bases = (ROOT, package, package / "tensors", shaders, shaders / "include", document.parent)
    return any((base / name).exists() for base in bases)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = [name for name in _PATH.findall(text) if not _ELSEWHERE.fullmatch(name)]
    missing = [name for name in [*named, *_LINK.findall(text)] if not exists(name, path)]
    assert not missing


def test_a_missing_file_is_seen(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("See `models/no_such_file.py` and [this](no/such.md#part), not `a.b`.")
    assert _PATH.findall(document.read_text()) == ["models/no_such_file.py"]
    with pytest.raises(AssertionError, match=r"no/such\.md"):
        test_what_a_document_names_exists(document)
