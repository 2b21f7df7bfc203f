"""The mutation script: mutated and unmutated code, and the tests that it runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from mutants import COVERED_BY, EQUIVALENT, ROOT, _all_mutants, _listed, covering
from mutations import mutants


def changes(path: str, source: str) -> list[str]:
    return [mutant.change for mutant in mutants(path, source)]


def test_wgsl() -> None:
    source = (
        "struct Params { rows: u32, }\n"
        "@group(0) @binding(1) var<storage, read> x: array<vec4<f32>, 16>;\n"
        "@compute @workgroup_size(64)\n"
        "fn main() -> f32 {\n"
        "  // x < 1\n"
        "  if (a < 2u && b[0x0f] != 1.5) { sum += 3.0e38; } // for x > 1\n"
        "  workgroupBarrier();\n"
        "  x[i].y =\n"
        "    max(c, d);\n"
        "}\n"
    )
    assert changes("kernel.wgsl", source) == [
        "< → <=", "2u → 3u", "&& → ||", "0x0f → 16", "!= → ==", "1.5 → 3.0", "+= → -=",
        "3.0e38 → 1.5e+38", "workgroupBarrier(); → nothing", "x[i].y = max(c, d); → nothing",
        "max → min",
    ]  # fmt: skip


def test_python() -> None:
    source = (
        "def f(x: int | None = 1, *, y: bool = True) -> int | str:\n"
        '    """Adds 1."""\n'
        "    if not x and len(y) >= 2:\n"
        '        raise ValueError(f"{x + 1}" * 3)\n'
        "    self.count[0] = min(x, y) // 2\n"
        "    call(x)\n"
        "    return x\n"
    )
    assert changes("module.py", source) == [
        "1 → 2", "True → False", "not → nothing", "and → or", ">= → >", "2 → 3",
        'raise ValueError(f"{x + 1}" * 3) → pass', "self.count[0] = min(x, y) // 2 → pass",
        "0 → 1", "min → max", "// → *", "2 → 3", "call(x) → pass",
    ]  # fmt: skip


def test_every_mutant_of_python_is_python() -> None:
    sources: dict[str, str] = {}
    every = [mutant for mutant in _all_mutants(None) if mutant.path.endswith(".py")]
    for mutant in every[::7]:
        source = sources.setdefault(mutant.path, (ROOT / mutant.path).read_text())
        ast.parse(mutant.applied(source))
        assert mutant.applied(source) != source
    assert len(every) > 500


@pytest.mark.parametrize("path", sorted(ROOT.glob("shaders/**/*.wgsl")), ids=lambda path: path.name)
def test_every_shader_is_mutated(path: Path) -> None:
    assert covering(path.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("pattern", COVERED_BY)
def test_every_pattern_names_files_and_tests_that_exist(pattern: str) -> None:
    assert list(ROOT.glob(pattern))
    for test in covering(pattern.replace("*", "x")):
        assert (ROOT / test).exists()


def test_equivalent_mutants_have_a_place_and_a_reason() -> None:
    for (path, code, change), reason in _listed(EQUIVALENT.read_text()).items():
        assert covering(path) and code and " → " in change
        assert re.fullmatch(r"[\w ,'().*/+<>=²:;-]{15,}", reason)
