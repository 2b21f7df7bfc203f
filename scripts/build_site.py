"""Builder of the static site: `python scripts/build_site.py [FOLDER]` (default: dist).

The folder is self-contained and works on any static host, under any sub-path:

    index.html, web/        as in the repository, and web/gpu.js, the package's JavaScript, and
                            web/first-kernels.bin, what it compiles first: see first_kernels.py
    pyodide/                Python for the browser, a lock file of the wheels, and, if Chromium is
                            installed, a memory snapshot of both after start: see snapshot.py
    wheels/                 this package without its model, and wgpu without its native library
    models/fairytales/      the embedded model
    manifest.json           {path: {"bytes", "sha256"}} of every other file except _headers
    _headers                the page's policy, also for the worker, on hosts that read this file

Downloads are pinned by their hashes and cached in build/; later builds need no network. Equal
sources give equal bytes (except the snapshot, which is renewed only if its contents have changed),
and only changed files are written. Files that are not in the folder's manifest are never deleted.
Needs `npm` for the first build.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from site_lock import NoToolError, lock
from snapshot import NoSnapshotError, take

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "site"

PYODIDE = "pyodide@314.0.7"
PYODIDE_SHA256 = "66b7949e5a0cba2250b586d7e368bf12fb482800748d182c4618254b685ffaa0"
PYODIDE_FILES = (
    "package.json",  # author and license
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "pyodide.mjs",
    "python_stdlib.zip",
)
WGPU = "wgpu==0.32.0"
WGPU_SHA256 = "cb23b2f225594258ccc8ba97458381e46c18e561c5d2d6fc25213e68a6d89985"
# Parts that a browser does not use: the native backend, C headers, windows and their requirements.
# Without these requirements micropip installs the wheel without further downloads.
WGPU_DROPPED = re.compile(r"wgpu/(backends/wgpu_native|resources/.*\.(h|idl|md)$|utils/imgui|__py)")
WGPU_NOT_REQUIRED = re.compile(r"(cffi|rendercanvas)\b")
OWN_DROPPED = re.compile(r"gpt2_wgpu/presets/")
NOTHING = re.compile(r"(?!)")
SITE_SOURCES = ("index.html", "models/fairytales", "web")  # served unchanged
OWN_SOURCES = ("LICENSE", "README.md", "gpt2_wgpu", "pyproject.toml", "shaders")

LOCK = "pyodide/pyodide-lock.json"
MANIFEST = "manifest.json"

Contents = dict[str, bytes | Path]  # path within the site -> contents


def main(argv: list[str]) -> int:
    site = Path(argv[0]) if argv else ROOT / "dist"
    try:
        written = write(site, contents())
    except (NoToolError, subprocess.CalledProcessError) as error:
        why = str(error) if isinstance(error, NoToolError) else reason(error)
        print(f"build_site: error: {why}", file=sys.stderr)
        return 1
    print(f"build_site: {site}: {written} files written, the others were up to date")
    return 0


def contents() -> Contents:
    """Return all files of the site."""
    files = library()
    for path in _files(SITE_SOURCES):
        if path.suffix != ".png" or path.is_relative_to(ROOT / "web"):
            files[path.relative_to(ROOT).as_posix()] = path
    files |= snapshot(files)
    files[MANIFEST] = manifest(files)
    files["_headers"] = headers()  # not in the manifest, as hosts that read it do not serve it
    return files


def library() -> Contents:
    """Return the files of the JavaScript module without the page, those of the npm package."""
    wheels = [own_wheel(), wgpu_wheel()]
    pyodide = pyodide_folder()
    files: Contents = {f"pyodide/{name}": pyodide / name for name in PYODIDE_FILES}
    files |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
    files[LOCK] = lock(pyodide / "pyodide-lock.json", wheels)
    files["service-worker.js"] = ROOT / "web" / "service-worker.js"  # its scope is its folder
    files["web/gpu.js"] = ROOT / "gpt2_wgpu" / "webgpu" / "backends" / "browser" / "script.js"
    files["web/first-kernels.bin"] = first_kernels()
    for path in [*(ROOT / "web").glob("*.[jt]s"), *_files(["models/fairytales"])]:
        if path.suffix != ".png":
            files[path.relative_to(ROOT).as_posix()] = path
    return files


def pyodide_folder() -> Path:
    """Return the folder of Pyodide's core, from its npm package."""

    def make(folder: Path) -> None:
        _run(["npm", "pack", "--silent", "--pack-destination", str(folder), PYODIDE])
        (archive,) = folder.glob("*.tgz")
        if _sha256(archive.read_bytes()) != PYODIDE_SHA256:
            raise SystemExit(f"build_site: error: {PYODIDE} from npm has an unexpected hash")
        with tarfile.open(archive) as opened:
            for member in opened:
                name = member.name.removeprefix("package/")
                if name in (*PYODIDE_FILES, "pyodide-lock.json"):
                    member.name = name
                    opened.extract(member, folder, filter="data")
        archive.unlink()

    return _kept("pyodide", PYODIDE_SHA256, make)


def wgpu_wheel() -> Path:
    """Return wgpu as a pure wheel, built from its source distribution."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            pinned = Path(temporary, "requirements.txt")
            pinned.write_text(f"{WGPU} --hash=sha256:{WGPU_SHA256}\n")
            options = ["--require-hashes", "--no-binary=wgpu", f"--requirement={pinned}"]
            wheel = _pip_wheel(temporary, options, {"WGPU_PY_BUILD_NOARCH": "1"})
            strip(wheel, folder / wheel.name, WGPU_DROPPED, WGPU_NOT_REQUIRED)

    return _only_wheel(_kept("wgpu", WGPU_SHA256 + _sha256(Path(__file__).read_bytes()), make))


def own_wheel() -> Path:
    """Return this package's wheel without the model, which the page downloads on demand."""

    def make(folder: Path) -> None:
        # Without isolation pip needs no network, but the build backend must be installed.
        builders = ("hatchling", "hatch_fancy_pypi_readme")
        offline = ["--no-build-isolation"] if all(map(find_spec, builders)) else []
        with tempfile.TemporaryDirectory() as temporary:
            wheel = _pip_wheel(temporary, [*offline, str(ROOT)], {})
            strip(wheel, folder / wheel.name, OWN_DROPPED)

    return _only_wheel(_kept("own", _hash_of(OWN_SOURCES), make))


def first_kernels() -> Path:
    """Return the list of the kernels that the embedded model takes first."""
    program = ROOT / "scripts" / "first_kernels.py"

    def make(folder: Path) -> None:
        _run([sys.executable, str(program), str(folder / "list")])

    key = _hash_of((*OWN_SOURCES, "models/fairytales", "scripts/first_kernels.py"))
    return _kept("first-kernels", key, make) / "list"


def strip(
    wheel: Path, result: Path, dropped: re.Pattern[str], requires: re.Pattern[str] = NOTHING
) -> None:
    """Copy a wheel without files that match `dropped`, with fixed time stamps.

    Requirements that match `requires` are removed from METADATA; RECORD is updated.
    """
    with zipfile.ZipFile(wheel) as source:
        names = sorted(name for name in source.namelist() if not dropped.match(name))
        files = {name: source.read(name) for name in names}
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    record = metadata.removesuffix("METADATA") + "RECORD"
    files[metadata] = _without_requirements(files[metadata], requires)
    files[record] = "".join(
        f"{name},{',' if name == record else _record_of(data)}\n" for name, data in files.items()
    ).encode()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name, data in files.items():
            target.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def _without_requirements(metadata: bytes, requires: re.Pattern[str]) -> bytes:
    headers, blank_line, description = metadata.decode().partition("\n\n")
    field = re.compile(f"Requires-Dist: (?:{requires.pattern})")
    kept = "\n".join(line for line in headers.split("\n") if not field.match(line))
    return f"{kept}{blank_line}{description}".encode()


def _record_of(data: bytes) -> str:
    """Return hash and size in the format of a wheel's RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(data)}"


def snapshot(files: Contents) -> Contents:
    """Return Python's memory after start; the name has the packages (web/snapshot.js)."""
    of = {path: held for path, held in files.items() if path.startswith(("pyodide/", "wheels/"))}
    program = {kind: Path(__file__).with_name(f"snapshot.{kind}") for kind in ("js", "py")}
    key = _sha256(manifest({**of, **program, "gpu": files["web/gpu.js"]}))

    def make(folder: Path) -> None:
        (folder / "memory").write_bytes(take(files))

    try:
        memory = _kept("snapshot", key, make) / "memory"
    except NoSnapshotError as why:
        print(f"build_site: no snapshot: {why}; the page starts Python without", file=sys.stderr)
        return {}
    return {f"pyodide/snapshot-{_sha256(_bytes(files[LOCK]))[:16]}.bin": memory}


def manifest(files: Contents) -> bytes:
    """Return the manifest, by which the page verifies its downloads."""
    data = {path: _bytes(held) for path, held in sorted(files.items())}
    return _json({path: {"bytes": len(d), "sha256": _sha256(d)} for path, d in data.items()})


def headers() -> bytes:
    """Return headers with index.html's policy for every file, as a worker has its script's policy.

    The format is that of Netlify and Cloudflare Pages.
    """
    page = (ROOT / "index.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', page)
    return f"/*\n  Content-Security-Policy: {policy}\n".encode()


def write(site: Path, files: Contents) -> int:
    """Write `files` to `site`, delete those of an older build; return the number written."""
    outdated = _built_before(site) - files.keys()
    written = 0
    for path in (MANIFEST, *files):  # the manifest marks an interrupted build
        target, data = site / path, _bytes(files[path])
        if target.is_file() and target.read_bytes() == data:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        written += 1
    for path in outdated:
        (site / path).unlink(missing_ok=True)
        for folder in (site / path).parents:
            if folder == site or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
    return written


def _built_before(site: Path) -> set[str]:
    """Return the files of an older build in `site`; SystemExit if it contains anything else."""
    if ROOT.is_relative_to(site.resolve()):
        raise SystemExit(f"build_site: error: {site} holds this checkout: choose another folder")
    if not site.exists() or (site.is_dir() and not any(site.iterdir())):
        return set()
    try:
        found = json.loads((site / MANIFEST).read_bytes())
        paths = {path for path, entry in found.items() if entry["sha256"]}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise SystemExit(
            f"build_site: error: {site} is not empty and holds no built site (a {MANIFEST} that "
            "names its files): choose another folder, or empty it yourself"
        ) from None
    root = site.resolve()
    return {path for path in paths if (site / path).resolve().is_relative_to(root)}


def _kept(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder build/site/`name`, rebuilt if `key` has changed."""
    folder, note = KEPT / name, KEPT / f"{name}.key"
    if not (folder.is_dir() and note.is_file() and note.read_text() == key):
        note.unlink(missing_ok=True)  # marks an interrupted run
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        note.write_text(key)
    return folder


def _pip_wheel(folder: str, options: list[str], environment: dict[str, str]) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", f"--wheel-dir={folder}", *options], environment)
    return _only_wheel(Path(folder))


def _only_wheel(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    if shutil.which(command[0]) is None:
        raise SystemExit(f"build_site: error: {command[0]} is needed and not installed")
    env = os.environ | (environment or {})
    subprocess.run(command, check=True, capture_output=True, text=True, env=env)


def reason(error: subprocess.CalledProcessError) -> str:
    lines = str(error.stderr).strip().splitlines() or ["no reason given"]
    return f"{' '.join(map(str, error.cmd))}: {lines[-1]}"


def _hash_of(names: Iterable[str]) -> str:
    """Return a hash of these files of the repository, and of this program."""
    sources = hashlib.sha256(Path(__file__).read_bytes())
    for path in _files(names):
        sources.update(f"{path.relative_to(ROOT)} {_sha256(path.read_bytes())}\n".encode())
    return sources.hexdigest()


def _files(names: Iterable[str]) -> list[Path]:
    """Return the existing files under these paths of the repository, sorted."""
    roots = [ROOT / name for name in names]
    found = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def _bytes(held: bytes | Path) -> bytes:
    return held if isinstance(held, bytes) else held.read_bytes()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
