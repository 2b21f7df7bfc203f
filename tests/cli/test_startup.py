"""Start of the program: no heavy imports, and no traceback on Ctrl-C."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu._version import __version__

INTERRUPTED_IMPORT = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt
sys.modules.pop(sys.argv[1], None)  # a tool that measures this process may have imported it
sys.meta_path.insert(0, Interrupt())
from gpt2_wgpu.cli.main import main
assert sys.argv[1] not in sys.modules
sys.exit(main(["generate", "-n", "1", "Once"]))
"""


def test_usage_errors_come_before_anything_heavy(environment: dict[str, str]) -> None:
    script = (
        "import sys\n"
        "from gpt2_wgpu.cli.main import main\n"
        "status = main(['generate', '--temp', 'x'])\n"
        "print(status, {'numpy', 'regex', 'tqdm', 'huggingface_hub'} & {*sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.stdout == "2 set()\n"


def test_python_m_is_the_command(environment: dict[str, str]) -> None:
    for module in ("gpt2_wgpu", "gpt2_wgpu.cli"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--version"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"gpt2-wgpu {__version__} ")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("argparse", ""),
        ("gpt2_wgpu.cli.program", ""),
        ("json", ""),
        ("gpt2_wgpu.webgpu", "gpt2-wgpu: interrupted\n"),
        ("wgpu", "gpt2-wgpu: interrupted\n"),
    ],
)
def test_control_c_during_imports_is_no_traceback(
    module: str, said: str, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)


def test_every_public_name_is_what_the_type_checker_sees() -> None:
    """The imports under TYPE_CHECKING are what a reader and mypy know of the package."""
    tree = ast.parse(Path(gw.__file__).read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    named = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            if node.module == "gpt2_wgpu":
                named[alias.name] = import_module(f"gpt2_wgpu.{alias.name}")
            else:
                named[alias.name] = getattr(import_module(node.module or ""), alias.name)
    assert sorted(named) == sorted([*gw.__all__, "__version__"])
    for name, value in named.items():
        assert getattr(gw, name) is value, name
    assert {*gw.__all__} <= {*dir(gw)}


def test_names_come_when_they_are_asked_for(environment: dict[str, str]) -> None:
    script = (
        "import sys\n"
        "import gpt2_wgpu as gw\n"
        "print('gpt2_wgpu.webgpu' in sys.modules, gw.presets()['gpt2'] != '', gw.models.__name__)\n"
        "from gpt2_wgpu import *\n"
        "print(GPT2CausalLM.__name__, samplers is gw.samplers, tensor is gw.tensor)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert done.stdout == "False True gpt2_wgpu.models\nGPT2CausalLM True True\n"


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'gpt2_wgpu' has no attribute 'import_modul'"):
        _ = gw.import_modul  # type: ignore[attr-defined]
