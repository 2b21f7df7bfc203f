"""Includes of shaders: each header names what the file provides and what it needs from others."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHADERS = ROOT / "shaders"
INCLUDES = sorted((SHADERS / "include").glob("*.wgsl"))
KERNELS = sorted(SHADERS.glob("*.wgsl"))
MAX_COLUMNS = 100

NAME = r"[A-Za-z_]\w*"
INCLUDE = re.compile(r'^//!include "([^"]+)"', re.MULTILINE)
DECLARATION = re.compile(
    rf"^(?:@[^\n]*\s)?(?:fn|struct|alias|const|override|var(?:<[^>]*>)?)\s+({NAME})", re.MULTILINE
)
LOCAL = re.compile(rf"\b(?:let|var|const)\s+({NAME})|\b({NAME})\s*:")


def pasted(path: Path) -> list[Path]:
    """The includes of a file, and theirs, for every variant."""
    found = []
    for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
        for included in sorted((SHADERS / "include").glob(re.sub(r"\{\w+\}", "*", name))):
            found += [included, *pasted(included)]
    return found


def variants(path: Path) -> list[list[Path]]:
    """The includes of a file for each of its variants, theirs among them."""
    offered = []
    for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
        choices = sorted((SHADERS / "include").glob(re.sub(r"\{\w+\}", "*", name)))
        offered.append([[chosen, *inner] for chosen in choices for inner in variants(chosen)])
    return [[file for chosen in choice for file in chosen] for choice in product(*offered)]


def code(path: Path) -> str:
    return re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))


def declared(path: Path) -> set[str]:
    """The names that a file declares at module scope."""
    return set(DECLARATION.findall(code(path)))


def fields(paths: list[Path]) -> set[str]:
    """The parameters, as ``params.name``, that one of the files declares."""
    text = "".join(map(code, paths))
    return {
        f"params.{name}"
        for body in re.findall(r"struct Params\s*\{([^}]*)\}", text)
        for name in re.findall(rf"({NAME})\s*:", body)
    }


def used(path: Path, others: set[str]) -> set[str]:
    """The names out of ``others``, and the parameters, that the code of a file uses."""
    text = code(path)
    local = {name for pair in LOCAL.findall(text) for name in pair}
    words = set(re.findall(rf"(?<![.\w])({NAME})\b", text))
    return ((words & others) - local) | set(re.findall(rf"\bparams\.{NAME}", text))


def listed(path: Path, title: str) -> set[str]:
    """The names that the header lists under ``title``; notes in parentheses do not count."""
    header = re.match(r"(?://(?!!)[^\n]*\n)+", path.read_text(encoding="utf-8"))
    assert header, f"{path.name} has no header"
    text = re.sub(r"\n// *", " ", "\n" + header.group().replace("\n//\n", "\n//|"))
    entry = re.search(rf"{title}:([^|:]*)(?:Needs:|\||$)", text)
    assert entry, f"the header of {path.name} has no line {title!r}"
    names = re.sub(r"\([^)]*\)", "", entry[1])
    return set(re.findall(rf"{NAME}(?:\.{NAME})?", names)) - {"nothing"}


EVERY_NAME = set().union(*map(declared, KERNELS + INCLUDES)) - {"main", "Params", "params"}


@pytest.mark.parametrize("path", INCLUDES, ids=lambda path: path.stem)
def test_an_include_lists_what_it_provides_and_needs(path: Path) -> None:
    own = set().union(declared(path), *map(declared, pasted(path)))
    assert listed(path, "Provides") <= own
    assert listed(path, "Provides") & declared(path)
    needed = used(path, EVERY_NAME) - own
    if "params" in own:
        needed -= fields([path, *pasted(path)])
    assert listed(path, "Needs") == needed


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_what_an_include_needs_is_declared_where_it_is_pasted(path: Path) -> None:
    for includes in variants(path):
        files = [path, *includes]
        known = set().union(*map(declared, files)) | fields(files)
        for file in includes:
            assert listed(file, "Needs") <= known, (file.name, [each.name for each in includes])


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_uses_of_an_include_only_what_it_provides(path: Path) -> None:
    provided = set().union(*(listed(file, "Provides") for file in pasted(path)))
    hidden = set().union(*map(declared, pasted(path))) - provided - declared(path)
    assert not used(path, hidden) & hidden


@pytest.mark.parametrize("path", KERNELS + INCLUDES, ids=lambda path: path.stem)
def test_no_line_is_too_long(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > MAX_COLUMNS]
