"""Architecture: imports point down the layers, without circles, and files stay small."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gpt2_wgpu"
MODULES = sorted(PACKAGE.rglob("*.py"))
SHADERS = sorted((ROOT / "shaders").rglob("*.wgsl"))
# The references of `make parity` are programs: no test imports them.
REFERENCES = ROOT / "tests" / "parity" / "references"
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if path.parent != REFERENCES)
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "examples", "gpt2_wgpu", "scripts", "tests", "training")
    for path in (ROOT / folder).rglob("*.py")
)
WEB = sorted((ROOT / "web").rglob("*.js"))

# What each room may import of this package, itself aside. "public" is gpt2_wgpu/__init__.py.
# Files that belong to no room are named in FOUNDATION and may import only each other.
FOUNDATION = {
    "activation_names",
    "checkpoint_files",
    "copying",
    "errors",
    "file_signatures",
    "other_formats",
    "sampling_parameters",
    "shown",
    "small_files",
    "strict_json",
    "validation",
    "weight_formats",
    "_version",
}
BELOW = {
    "webgpu": set[str](),
    "tensors": {"webgpu"},
    "nn": {"tensors", "webgpu"},
    "layers": {"nn", "tensors", "webgpu"},
    "diagnostics": {"nn", "tensors", "webgpu"},
    "text": {"weights"},
    "weights": set[str](),
    "samplers": {"nn", "tensors", "text", "webgpu"},
    "models": {"diagnostics", "layers", "nn", "samplers", "tensors", "text", "webgpu", "weights"},
    "integrations": {
        "bench",
        "diagnostics",
        "models",
        "public",
        "samplers",
        "server",
        "text",
        "webgpu",
        "weights",
    },
    "public": {
        "diagnostics",
        "layers",
        "models",
        "nn",
        "samplers",
        "tensors",
        "text",
        "webgpu",
        "weights",
    },
    "bench": {"diagnostics", "models", "nn", "samplers", "tensors", "text", "webgpu"},
    "server": {"models", "public", "samplers", "text"},
    "cli": {"bench", "public", "samplers", "server", "weights"},
    "__main__": {"cli"},
}

# File and folder names that two subjects may share, one line each: why.
SHARED_NAMES = {
    "__init__",
    "__main__",
    "bench",  # cli/bench.py is the command that runs the package bench
}

# Absent in the browser, so imported only inside functions; wgpu is there: only webgpu/ imports it.
NATIVE_ONLY = {
    "h5py",
    "huggingface_hub",
    "llguidance",
    "numpy",
    "prompt_toolkit",
    "ray",
    "regex",
    "tqdm",
}
LARGE = ("keras_hub.", "ray.", "safetensors.torch.", "torch.", "transformers.")
GUARDED = {"text/pretokenizer.py"}  # imports regex at the top, in a try


def room_of(path: Path) -> str:
    """Return the package of a file."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) == 1:
        return "public" if parts[0] == "__init__" else parts[0]
    return parts[0]


def at_run_time(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that importing a module runs: not those of functions, nor for typing only."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_run_time(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from at_run_time(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from at_run_time(handler.body)


def imported(path: Path, node: ast.AST) -> list[str]:
    """The dotted names that an import statement may load; relative ones made absolute."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = ("gpt2_wgpu", *path.relative_to(PACKAGE).parent.parts)
        base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [base])))
    return [f"{base}.{alias.name}" for alias in node.names]


def rooms_imported(path: Path) -> set[str]:
    """The rooms of this package that a file imports anywhere, in functions too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        for name in imported(path, node):
            first, _, rest = name.partition(".")
            if first == "gpt2_wgpu":
                inner = rest.partition(".")[0]
                known = inner in BELOW or inner in FOUNDATION
                rooms.add(inner if known and inner != "public" else "public")
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in BELOW or room in FOUNDATION, f"{path.name}: a new room? Give it a place in BELOW"
    allowed = BELOW[room] | FOUNDATION | {room} if room in BELOW else FOUNDATION
    assert rooms_imported(path) <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_the_browser_lacks_is_imported_late(path: Path) -> None:
    found = {
        name.partition(".")[0]
        for node in at_run_time(ast.parse(path.read_text()).body)
        for name in imported(path, node)
    }
    forbidden = NATIVE_ONLY - ({"regex"} if str(path.relative_to(PACKAGE)) in GUARDED else set())
    assert not found & forbidden


def test_tests_import_large_packages_late() -> None:
    """Inside functions: collecting the tests, and those that need none of them, stays quick."""
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in TESTS
        for node in at_run_time(ast.parse(path.read_text()).body)
        for name in imported(path, node)
        if f"{name}.".startswith(LARGE)
    ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_webgpu_imports_wgpu(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if id(node) not in for_types
        for name in imported(path, node)
    }
    assert "wgpu" not in names or room_of(path) == "webgpu"


def test_a_wall_that_is_broken_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    bad = tmp_path / "text" / "bad.py"
    bad.parent.mkdir()
    bad.write_text(
        "from __future__ import annotations\n"
        "import gpt2_wgpu.webgpu.device\n"
        "from ..models import backbone\n"
        "from . import vocabulary\n"
        "from .. import samplers, Device\n"
        "try:\n    import numpy as np\nexcept ImportError:\n    import tqdm.auto\n"
        "def late():\n    import regex\n    from gpt2_wgpu.weights.header import x\n"
    )
    assert rooms_imported(bad) == {"webgpu", "models", "text", "samplers", "public", "weights"}
    with pytest.raises(AssertionError):
        test_imports_point_down(bad)
    late = [imported(bad, node) for node in at_run_time(ast.parse(bad.read_text()).body)]
    assert ["numpy"] in late
    assert ["tqdm.auto"] in late
    assert ["regex"] not in late
    with pytest.raises(AssertionError):
        test_what_the_browser_lacks_is_imported_late(bad)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Module → the modules of ``package`` that it imports: at import, in functions, for types."""
    paths = {module_name(package, path): path for path in package.rglob("*.py")}
    graph = {}
    for module, path in paths.items():
        names = {
            name for node in ast.walk(ast.parse(path.read_text())) for name in imported(path, node)
        }
        # `from package import name`: a module of it, or what its __init__ has.
        found = {name if name in paths else name.rpartition(".")[0] for name in names}
        graph[module] = (found & paths.keys()) - {module}
    return graph


def module_name(package: Path, path: Path) -> str:
    """The dotted name of a file of ``package``."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        path.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            first = path.index(module)
            found.append(sorted(path[first:]))
            del path[first:]

    for module in graph:
        if module not in order:
            visit(module)
    return [component for component in found if len(component) > 1]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = import_graph(PACKAGE)
    assert len(graph) > 100 and sum(map(len, graph.values())) > 500
    assert circles(graph) == []
    assert circles(BELOW) == []


@pytest.mark.parametrize(
    "statement",
    [
        "from gpt2_wgpu.low import b",
        "import gpt2_wgpu.low.b",
        "from .low.b import name",
        "def late():\n    from gpt2_wgpu.low.b import name",
        "class A:\n    async def late(self):\n        from gpt2_wgpu.low import b",
        "if TYPE_CHECKING:\n    from gpt2_wgpu.low.b import name",
    ],
)
def test_a_circle_of_each_kind_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """A circle of three, with one import at import time, lazy, or for types only."""
    package = tmp_path / "gpt2_wgpu"
    monkeypatch.setitem(globals(), "PACKAGE", package)
    (package / "low").mkdir(parents=True)
    for file, text in {
        "__init__.py": "",
        "low/__init__.py": "",
        "a.py": statement,
        "low/b.py": "from ..c import name",
        "c.py": "import gpt2_wgpu.a",
        "d.py": "from gpt2_wgpu import a, c",  # in no circle
    }.items():
        (package / file).write_text(text)
    assert circles(import_graph(package)) == [["gpt2_wgpu.a", "gpt2_wgpu.c", "gpt2_wgpu.low.b"]]
    (package / "a.py").write_text("")
    assert circles(import_graph(package)) == []


def test_no_two_files_share_a_name() -> None:
    """A file name identifies one subject."""
    folders = {path.parent for path in MODULES} - {PACKAGE}
    names = Counter([path.stem for path in MODULES] + [path.name for path in folders])
    shared = {name for name, times in names.items() if times > 1}
    assert shared == SHARED_NAMES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_ships_no_scripts(path: Path) -> None:
    """Programs of maintainers are in scripts/; the package is run by its __main__ modules."""
    assert path.stem == "__main__" or 'if __name__ == "__main__"' not in path.read_text()


def test_no_room_is_a_junk_room() -> None:
    junk = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in SCRIPTS if junk & {*path.with_suffix("").parts}]


@pytest.mark.parametrize("path", SCRIPTS + WEB, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_outgrows_its_reader(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_there_are_shaders() -> None:
    assert SHADERS


@pytest.mark.parametrize("path", SHADERS, ids=lambda path: path.name)
def test_a_shader_explains_itself(path: Path) -> None:
    header = re.match(r"(?:[ \t]*//[^\n]*\n|[ \t]*\n)*", path.read_text())
    assert header is not None
    assert header.group().strip()
    kernel = path.parent.name == "shaders"  # the rest are included by kernels
    wanted = ("Formula", "Bindings", "Threads", "Limits") if kernel else ()
    assert not [word for word in wanted if word not in header.group()]


@pytest.mark.parametrize("path", SHADERS, ids=lambda path: path.name)
def test_a_shader_avoids_reserved_names(path: Path) -> None:
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    assert not re.search(r"\btarget\b", code), "'target' is reserved in WGSL"
