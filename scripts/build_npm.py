"""Builder of the npm package: `python scripts/build_npm.py [FOLDER]` (default: build/npm).

`npm pack` and `npm publish` accept the folder:

    package.json, README.md, LICENSE    README.md is docs/npm.md
    dist/                               the site (build_site.py) without page and snapshot

dist/ has all that the package needs in a browser, so it asks nothing of other hosts.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from build_site import MANIFEST, ROOT, library, manifest, reason, write
from site_lock import NoToolError

MODULE = "./dist/web/gpt2"


def main(argv: list[str]) -> int:
    folder = Path(argv[0]) if argv else ROOT / "build" / "npm"
    try:
        build(folder)
    except (NoToolError, subprocess.CalledProcessError) as error:
        why = str(error) if isinstance(error, NoToolError) else reason(error)
        print(f"build_npm: error: {why}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"build_npm: {folder}: {size / 1e6:.1f} MB, for `npm pack {folder}`")
    return 0


def build(folder: Path) -> None:
    """Write the package to `folder`."""
    files = library()
    write(folder / "dist", {**files, MANIFEST: manifest(files)})
    (folder / "package.json").write_text(json.dumps(description(), indent=2) + "\n")
    (folder / "README.md").write_bytes((ROOT / "docs" / "npm.md").read_bytes())
    (folder / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())


def description() -> dict[str, object]:
    """Return the contents of package.json, with what pyproject.toml states."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = (ROOT / "gpt2_wgpu" / "_version.py").read_text(encoding="utf-8")
    return {
        "name": "gpt2-wgpu",
        "version": _stated("__version__", version),
        "description": _stated("description", project),
        "keywords": ["gpt2", "webgpu", "wgsl", "pyodide", "language-model", "text-generation"],
        "license": _stated("license", project),
        "author": "The gpt2-wgpu authors",
        "type": "module",
        "exports": {
            ".": {"types": f"{MODULE}.d.ts", "default": f"{MODULE}.js"},
            "./dist/*": "./dist/*",
            "./package.json": "./package.json",
        },
        "types": f"{MODULE}.d.ts",
        # gpt2.js and what it imports have none; these two are programs of their own.
        "sideEffects": [
            "./dist/service-worker.js",
            "./dist/web/download-worker.js",
            "./dist/web/gpu.js",
            "./dist/web/worker.js",
        ],
        "files": ["dist"],
    }


def _stated(name: str, text: str) -> str:
    (found,) = re.findall(rf'^{name} = "(.+)"$', text, re.MULTILINE)
    return str(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
