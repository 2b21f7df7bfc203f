"""The npm package in a Vite app and on a page with an import map, as docs/npm.md describes both.

The Vite app has the package's files beside it; the page reads them from another origin. Both write
what the engine writes natively.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bootstrap import NO_NODE

from gpt2_wgpu import __version__
from tests.browser.chromium import Tab
from tests.browser.clients.client import OpenHandler, serving

ROOT = Path(__file__).parents[3]
README = (ROOT / "docs" / "npm.md").read_text(encoding="utf-8")
PAGE_OF_APP = """<!doctype html>
<link rel="icon" href="data:,">
<script type="module" src="main.js"></script>
"""
ENDED = "() => document.title === 'The end'"


def code(mark: str) -> str:
    """The code in docs/npm.md under that mark, writing 20 tokens greedily in float16."""
    (found,) = re.findall(rf"<!-- test: {mark} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    greedy = found.replace("maxTokens: 50", "maxTokens: 20, temperature: 0")
    page = re.sub(r'load\("fairytales".*\)', 'load("fairytales", { dtype: "float16" })', greedy)
    assert found != greedy != page
    return page


@contextmanager
def opened(chromium: str, address: str) -> Iterator[Tab]:
    tab = Tab(chromium, address)
    try:
        yield tab
    finally:
        tab.close()
    assert not [text for text in tab.complaints if "favicon" not in text and "404" not in text]


def test_the_package(npm_package: Path, node_modules: Path) -> None:
    """Metadata, types for both ways of resolution, and the size that its README states."""
    described = json.loads((npm_package / "package.json").read_text())
    assert (described["name"], described["version"]) == ("gpt2-wgpu", __version__)
    assert described["license"] == "MIT" and (npm_package / "LICENSE").is_file()
    assert (npm_package / "README.md").read_text(encoding="utf-8") == README
    assert not list(npm_package.rglob("*snapshot-*")) + list(npm_package.rglob("*.html"))
    for target in (*described["exports"]["."].values(), *described["sideEffects"]):
        assert (npm_package / target).is_file()
    unpacked = sum(path.stat().st_size for path in npm_package.rglob("*") if path.is_file())
    (archive,) = npm_package.parents[1].glob("*.tgz")
    stated = re.search(r"(\d+) MB \((\d+) MB packed\)", README)
    assert stated is not None
    for size, found in zip((unpacked, archive.stat().st_size), stated.groups(), strict=True):
        assert abs(size / 1e6 - int(found)) < 1

    app = npm_package.parents[1]
    (app / "app.mts").write_text(
        'import { GPT2, configure } from "gpt2-wgpu";\n'
        'configure({ baseURL: new URL("https://a.host/") });\n'
        'const lm: GPT2 = await GPT2.load("fairytales");\n'
        'for await (const text of lm.stream("The")) text.toUpperCase();\n'
        "// @ts-expect-error\n"
        "configure({ baseURL: 1 });\n"
    )
    for resolution in ("bundler", "nodenext"):
        module = "esnext" if resolution == "bundler" else resolution
        options = ["--noEmit", "--strict", "--target", "esnext", "--types", ""]
        options += ["--module", module, "--moduleResolution", resolution]
        command = [str(node_modules / ".bin" / "tsc"), *options, "app.mts"]
        done = subprocess.run(command, cwd=app, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def vite_app(
    host: tuple[Path, str],
    npm_package: Path,
    node_modules: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path]]:
    """The address of the app that Vite builds, and its folder."""
    vite = node_modules / ".bin" / "vite"
    if not vite.exists():
        pytest.fail(NO_NODE)
    app = tmp_path_factory.mktemp("app")
    (app / "node_modules").symlink_to(npm_package.parent)
    (app / "index.html").write_text(PAGE_OF_APP)
    (app / "main.js").write_text(code("vite.js"))
    shutil.copytree(npm_package / "dist", app / "public" / "gpt2-wgpu")
    built = host[0] / "vite"
    options = ["--base=/vite/", f"--outDir={built}", "--emptyOutDir", "--logLevel=warn"]
    command = [str(vite), "build", *options]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    yield f"{host[1]}/vite/", built


def test_a_vite_app(chromium: str, vite_app: tuple[str, Path], story: str) -> None:
    """It is one small script: the worker and what that loads stay outside of the bundle."""
    address, built = vite_app
    (script,) = (built / "assets").iterdir()
    assert script.suffix == ".js" and script.stat().st_size < 20_000
    with opened(chromium, address) as tab:
        tab.wait_for(ENDED, 120)
        assert tab.evaluate("() => document.body.innerText").strip() == story.strip()


def test_an_import_map_to_another_origin(
    chromium: str, host: tuple[Path, str], npm_package: Path, story: str
) -> None:
    """The worker, Python, the wheels and the model are all of the other origin."""
    page = code("importmap.html")
    with serving(npm_package.parents[1], OpenHandler) as elsewhere:
        assert '"./node_modules/' in page
        page = page.replace('"./node_modules/', f'"{elsewhere}/node_modules/')
        (host[0] / "importmap.html").write_text(page, encoding="utf-8")
        with opened(chromium, f"{host[1]}/importmap.html") as tab:
            tab.wait_for(ENDED, 120)
            assert tab.evaluate("() => document.body.innerText").strip() == story.strip()
            offline = f"import('{elsewhere}/node_modules/gpt2-wgpu/dist/web/gpt2.js')"
            assert not tab.evaluate(f"async () => (await {offline}).offline.enable()")
