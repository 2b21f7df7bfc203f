"""The entry point. It imports nothing before `main` runs, so that Ctrl-C is quiet from then on.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's own); returns the exit status."""
    try:
        from gpt2_wgpu.cli.program import run

        return run(argv)
    except KeyboardInterrupt:  # while the program was being imported
        return 130
