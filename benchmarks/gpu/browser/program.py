"""A browser as a program: started with a page's address and a new profile, without a driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FIREFOX_PREFERENCES = {
    "dom.webgpu.enabled": True,
    "gfx.webgpu.ignore-blocklist": True,  # Linux is on it
    "app.normandy.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.server": "data:,",
}
CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-webgpu",
)
# On Linux WebGPU is off by default, and a headless machine has no surface to draw on.
LINUX_GPU = ("--use-angle=vulkan", "--enable-features=Vulkan", "--disable-vulkan-surface")
LINUX_SOFTWARE = ("--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


def command(program: str, profile: Path, address: str, software: bool) -> list[str]:
    """Return the command line; write the profile's preferences for Firefox."""
    if "firefox" in Path(program).name.lower():
        wanted = FIREFOX_PREFERENCES.items()
        lines = (f"user_pref({json.dumps(key)}, {json.dumps(value)});\n" for key, value in wanted)
        (profile / "user.js").write_text("".join(lines), encoding="utf-8")
        return [program, "--headless", "--no-remote", "--profile", str(profile), address]
    flags = [*CHROMIUM_FLAGS, f"--user-data-dir={profile}"]
    if sys.platform == "linux":
        flags += LINUX_SOFTWARE if software else LINUX_GPU
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium does not run as root otherwise
    return [program, *flags, address]


@contextmanager
def running(program: str, address: str, software: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Run the browser on the page; end it, and remove its profile, afterwards.

    Raises ``OSError`` if it cannot be started.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        line = command(program, Path(folder), address, software)
        with subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
