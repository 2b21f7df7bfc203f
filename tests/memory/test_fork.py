"""Forked processes: GPU use raises immediately, and the process ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.native("processes")


@pytest.fixture(scope="module")
def children():
    """Name of a child -> its exit status and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory.forking"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def rejected(found, expected=3):
    status, said = found
    named = "fork" in said and "spawn" in said
    return status == expected and said.startswith("DeviceError: ") and named


def test_every_use_raises_and_names_fork_and_spawn(children):
    uses = {name: found for name, found in children.items() if name.startswith("use: ")}
    assert len(uses) == 16
    assert {name: found for name, found in uses.items() if not rejected(found)} == {}


def test_every_child_ends_whatever_it_frees(children):
    ends = {name: found for name, found in children.items() if name.startswith("end: ")}
    assert len(ends) == 7
    assert {name: found for name, found in ends.items() if found != [0, "ok"]} == {}


@pytest.mark.parametrize(
    "name",
    ["opening where the parent has listed adapters", "the lock is held by another thread"],
)
def test_a_child_raises_whatever_the_parent_did(children, name):
    assert rejected(children[name]), children[name]


def test_a_child_forked_in_another_thread_raises(children):
    assert rejected(children["from another thread"], expected=0)  # sys.exit ends that thread only


def test_a_child_of_a_child_raises(children):
    status, said = children["a child of a child"]
    assert status == 0 and "spawn" in said and said.startswith("(3, ")


def test_multiprocessing_hands_the_error_on(children):
    status, said = children["multiprocessing"]
    assert status == 0 and said.startswith("DeviceError(") and "spawn" in said


def test_the_parent_goes_on(children):
    assert children["the parent"] == [0, "[2.0, 4.0]"]


def test_a_child_forked_before_the_first_use_may_use_the_gpu(children):
    assert children["a child that is forked before the first use"] == [0, "[2.0]"]
