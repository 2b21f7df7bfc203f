"""Search of containers for tensors: TF.js's tensor_util_test, and Python's containers."""

from __future__ import annotations

from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.tensors.scopes import tensors_in
from tests.memory.tiny import new

Pair = namedtuple("Pair", ["left", "right"])


pytestmark = pytest.mark.usefixtures("no_leak")


@dataclass
class Record:
    left: object
    right: object


@dataclass(slots=True)
class Slots:
    left: object
    right: object


class Lazy(Mapping[Any, Any]):
    """Makes its values when asked, so that ids of containers are used again."""

    def __init__(self, depth, tensor):
        self.depth, self._tensors = depth, (lambda: tensor)

    def __getitem__(self, key):
        return Lazy(self.depth - 1, self._tensors()) if self.depth else self._tensors()

    def __iter__(self):
        return iter(["only"])

    def __len__(self):
        return 1


class Private:
    __slots__ = ("__hidden",)

    def __init__(self, hidden):
        self.__hidden = hidden


class Named(dict[str, Any]):
    """A container with attributes besides."""


def named(a, b):
    result = Named(a=a)
    result.other = b
    return result


CONTAINERS = {
    "list": lambda a, b: [a, b],
    "twice": lambda a, b: [a, a, (b, b), a],
    "mapping": lambda a, b: {"a": a, "b": {"c": [b]}},
    "set": lambda a, b: {a, frozenset([b])},
    "named tuple": Pair,
    "dataclass": Record,
    "namespace": lambda a, b: SimpleNamespace(a=a, deep=SimpleNamespace(b=b)),
    "deque": lambda a, b: deque([a, deque([b])]),
    "ordered": lambda a, b: OrderedDict(a=a, b=b),
    "user mapping": lambda a, b: UserDict(a=a, b=b),
    "read-only mapping": lambda a, b: MappingProxyType({"a": a, "b": b}),
    "lazy mapping": lambda a, b: [a, Lazy(9, b)],
    "slots": Slots,
    "private slot": lambda a, b: [Private(a), Private([b])],
    "attribute of a container": named,
}


@pytest.mark.parametrize("wrap", CONTAINERS.values(), ids=CONTAINERS)
def test_finds_tensors_in(wrap):
    made = [new(), new(), new()]
    found = list(tensors_in(wrap(made[0], made[1])))
    assert len(found) == 2 and set(found) == set(made[:2])
    gw.dispose(made)


@pytest.mark.parametrize("wrap", CONTAINERS.values(), ids=CONTAINERS)
def test_what_a_container_holds_leaves_a_scope_and_is_disposed(wrap):
    made = []

    def body():
        made.extend([new(), new(), new()])
        return wrap(made[0], made[1])

    result = gw.tidy(body)
    assert [tensor.disposed for tensor in made] == [False, False, True]
    gw.dispose(result)
    assert all(tensor.disposed for tensor in made)


def test_finds_tensors_behind_loops_and_in_depth():
    a, b = new(), new()
    loop = {"a": a, "list": []}
    loop["list"].append(loop)
    loop["self"] = loop
    deep = b
    for _ in range(5000):  # no recursion
        deep = [deep]
    assert set(tensors_in([loop, deep])) == {a, b}
    gw.dispose([loop, deep])
    assert a.disposed and b.disposed


@pytest.mark.parametrize("value", [None, 3, "abc", b"abc", [], {}, [None, {"a": 2}], len, int])
def test_finds_nothing_in(value):
    assert list(tensors_in(value)) == []
    gw.dispose(value)
    assert gw.keep(value) is value
