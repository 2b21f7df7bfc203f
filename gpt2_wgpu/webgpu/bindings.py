"""Importing wgpu: what is missing or wrong is said as that, not as a missing GPU."""

from __future__ import annotations

import sys
from typing import Any

from gpt2_wgpu.errors import DependencyError

WGPU = (0, 32)  # the release that pyproject.toml requires
_REMEDY = (
    f"install it with `pip install 'wgpu>={WGPU[0]}.{WGPU[1]},<{WGPU[0]}.{WGPU[1] + 1}'`",
    f"in a browser, install the wheel wgpu-{WGPU[0]}.{WGPU[1]}.0-py3-none-any.whl from the folder "
    "wheels/ that `make site` builds (PyPI has no wgpu for browsers)",
)


def load_wgpu() -> Any:
    """The package wgpu, in a browser with our backend.

    Raises ``DependencyError`` where it is missing, of another release, or cannot be loaded.
    """
    in_browser = sys.platform == "emscripten"
    try:
        import wgpu

        found = tuple(wgpu.version_info[:2])
        if found != WGPU:
            pass  # its parts may be elsewhere
        elif in_browser:
            from gpt2_wgpu.webgpu.backends import browser

            browser.register()
        else:
            import wgpu.backends.wgpu_native  # loads the native library
    except Exception as error:  # a native library's loader raises any
        missing = isinstance(error, ModuleNotFoundError) and error.name == "wgpu"
        why = (
            "is not installed" if missing else f"cannot be loaded ({' '.join(str(error).split())})"
        )
        raise DependencyError(f"the package wgpu {why}: {_REMEDY[in_browser]}") from None
    if found != WGPU:
        raise DependencyError(
            f"wgpu {wgpu.__version__} is installed, and this package needs "
            f"{WGPU[0]}.{WGPU[1]}: {_REMEDY[in_browser]}"
        )
    return wgpu
