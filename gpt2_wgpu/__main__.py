"""`python -m gpt2_wgpu` is `gpt2-wgpu`."""

from __future__ import annotations

from gpt2_wgpu.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
