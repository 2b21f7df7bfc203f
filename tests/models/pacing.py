"""What is counted by submit is the same on a slow machine and on a busy one."""

# For monkeypatch.setattr: submits take as many steps as there can be, however long one takes.
FULL_SUBMITS = ("gpt2_wgpu.models.pace.STEP_SECONDS", 1e9)
