"""`gpt2-wgpu run` at a pseudo-terminal."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Started


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pty")
def test_a_real_terminal(environment: dict[str, str], started: Started, tmp_path: Path) -> None:
    """Typed lines, Ctrl-C in the middle of a text, and Ctrl-D."""
    import pty

    leader, follower = pty.openpty()
    process = started(
        [*COMMAND, "run", "fairytales", "--dtype", "f16", "--greedy", "-n", "400"],
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env=environment | {"XDG_STATE_HOME": str(tmp_path)},
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(follower)
    seen = ""

    def wait_for(text: str, seconds: float = 60) -> None:
        nonlocal seen
        end = time.monotonic() + seconds
        while not re.search(text, seen, re.DOTALL):
            ready, _, _ = select.select([leader], [], [], max(end - time.monotonic(), 0))
            assert ready, seen
            seen += os.read(leader, 4096).decode(errors="replace")
            if "\x1b[6n" in seen:  # the position of the cursor is asked for
                os.write(leader, b"\x1b[1;1R")
                seen = seen.replace("\x1b[6n", "")

    wait_for(">>>")
    os.write(leader, b"Once upon a time\r")
    wait_for("king")
    os.write(leader, b"\x03")
    seen = ""
    wait_for(">>>")
    assert process.poll() is None
    os.write(leader, b"/sho\t")
    wait_for("/sho.*w")  # the rest of the word may be drawn alone
    os.write(leader, b" model\r")
    wait_for(" of 512 tokens")
    seen = ""
    wait_for(">>>")
    os.write(leader, b"\x04")
    assert process.wait(timeout=30) == 0
    assert "Once upon a time" in (tmp_path / "gpt2-wgpu" / "history").read_text()
    os.close(leader)
