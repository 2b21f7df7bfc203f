"""Import of wgpu, with distinct errors for a missing, wrong or broken installation."""

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
    """Import wgpu, with our backend in a browser.

    Raises:
        DependencyError: wgpu is missing, of another release, or cannot be loaded.
    """
    in_browser = sys.platform == "emscripten"
    try:
        import wgpu

        found = tuple(wgpu.version_info[:2])
        if found != WGPU:
            pass  # not the package itself
        elif in_browser:
            from gpt2_wgpu.webgpu.backends import browser

            browser.register()
        else:
            import wgpu.backends.wgpu_native  # loads the native library
    except Exception as error:  # loaders of native libraries raise various types
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
