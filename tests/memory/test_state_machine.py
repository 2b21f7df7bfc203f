"""Random programs against a plain Python model of the rules.

A program is a list of steps by a few tasks with scopes of their own; a task starts with those of
the task that spawned it, as asyncio's do. The model says which tensors live and what they hold.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import gpt2_wgpu as gw
from gpt2_wgpu.errors import DisposedTensorError, ScopeError
from gpt2_wgpu.webgpu.storage import size_class

pytestmark = pytest.mark.native("Hypothesis")

numbers = st.integers(0, 10_000)  # taken modulo the number of things to choose from
sizes = st.sampled_from([1, 2, 63, 64, 65, 300])


@dataclass
class Scope:
    """What a scope is, by the rules."""

    parent: Scope | None
    opened: object = None  # the tidy object, None: by start_scope
    real: object = None
    closed: bool = False

    def responsible(self):
        """The innermost scope that is open, from here on upwards."""
        scope: Scope | None = self
        while scope is not None and scope.closed:
            scope = scope.parent
        return scope


@dataclass(eq=False)
class Buffer:
    size: int
    value: float
    references: int = 0


@dataclass(eq=False)
class Tensor:
    buffer: Buffer
    scope: Scope | None
    real: gw.Tensor | None  # None: the program has forgotten it
    alive: bool = True
    kept: bool = False


@dataclass
class Task:
    context: object
    scope: Scope | None
    own: list[Scope] = field(default_factory=list)  # scopes that this task opened, innermost last

    def run(self, function, *arguments):
        return self.context.run(function, *arguments)


@contextmanager
def rejecting_disposed(tensors):
    """Expects DisposedTensorError of the block if one of ``tensors`` is disposed."""
    with ExitStack() as expecting:
        if not all(tensor.alive for tensor in tensors):
            expecting.enter_context(pytest.raises(DisposedTensorError))
        yield


class Programs(RuleBasedStateMachine):
    device: gw.Device  # set by the test

    def __init__(self):
        super().__init__()
        self.start = gw.memory(self.device)
        self.tasks = [Task(copy_context(), None)]
        self.tensors: list[Tensor] = []

    def task(self, number):
        return self.tasks[number % len(self.tasks)]

    def tensor(self, number):
        known = [tensor for tensor in self.tensors if tensor.real is not None]
        return known[number % len(known)]

    def some(self, chosen):
        known = any(tensor.real is not None for tensor in self.tensors)
        return [self.tensor(number) for number in chosen] if known else []

    # --- the rules --------------------------------------------------------------------------------

    def born(self, task, buffer, real):
        scope = task.scope.responsible() if task.scope else None
        buffer.references += 1
        self.tensors.append(Tensor(buffer, scope, real))

    def free(self, tensor):
        if tensor.alive:
            tensor.alive, tensor.scope = False, None
            tensor.buffer.references -= 1

    def move_up(self, tensors, scope):
        for tensor in tensors:
            if tensor.alive and tensor.scope is scope:
                tensor.scope = scope.parent.responsible() if scope.parent else None
                self.drop_if_forgotten(tensor)

    def drop_if_forgotten(self, tensor):
        """A tensor that no scope and no program refers to is garbage."""
        if tensor.real is None and tensor.scope is None:
            self.free(tensor)

    def closed(self, task, scope):
        scope.closed = True
        task.own.remove(scope)
        task.scope = scope.parent
        for tensor in self.tensors:
            if tensor.alive and tensor.scope is scope:
                self.free(tensor)

    # --- steps ------------------------------------------------------------------------------------

    @rule(task=numbers, size=sizes, value=st.integers(-9, 9))
    def create(self, task, size, value):
        task = self.task(task)
        real = task.run(lambda: gw.tensor([float(value)] * size, device=self.device))
        self.born(task, Buffer(size, float(value)), real)

    @precondition(lambda self: self.some([0]))
    @rule(task=numbers, number=numbers)
    def view(self, task, number):
        task, tensor = self.task(task), self.tensor(number)
        if self.is_usable(task, tensor, lambda: tensor.real.view((1, tensor.real.size))):
            real = task.run(lambda: tensor.real.view((1, tensor.real.size)))
            self.born(task, tensor.buffer, real)

    @precondition(lambda self: self.some([0]))
    @rule(task=numbers, number=numbers, deep=st.booleans())
    def copy(self, task, number, deep):
        task, tensor = self.task(task), self.tensor(number)
        how = copy.deepcopy if deep else copy.copy
        if self.is_usable(task, tensor, lambda: how(tensor.real)):
            buffer = Buffer(tensor.buffer.size, tensor.buffer.value) if deep else tensor.buffer
            self.born(task, buffer, task.run(lambda: how(tensor.real)))

    @precondition(lambda self: self.some([0]))
    @rule(task=numbers, number=numbers)
    def compute(self, task, number):
        task, tensor = self.task(task), self.tensor(number)
        if self.is_usable(task, tensor, lambda: tensor.real + 1):
            real = task.run(lambda: tensor.real + 1)
            self.born(task, Buffer(tensor.buffer.size, tensor.buffer.value + 1), real)

    @precondition(lambda self: self.some([0]))
    @rule(task=numbers, number=numbers)
    def read(self, task, number):
        task, tensor = self.task(task), self.tensor(number)
        if self.is_usable(task, tensor, lambda: tensor.real.numpy()):
            assert set(task.run(tensor.real.numpy).ravel().tolist()) == {tensor.buffer.value}

    def is_usable(self, task, tensor, use):
        if not tensor.alive:
            with pytest.raises(DisposedTensorError):
                task.run(use)
        return tensor.alive

    @rule(task=numbers, chosen=st.lists(numbers, max_size=3))
    def keep(self, task, chosen):
        found = self.some(chosen)
        self.task(task).run(lambda: gw.keep({"some": [t.real for t in found]}))
        for tensor in found:
            tensor.kept, tensor.scope = True, None

    @rule(task=numbers, chosen=st.lists(numbers, max_size=4))
    def dispose(self, task, chosen):
        found = self.some(chosen)
        reals = [t.real for t in found]
        self.task(task).run(lambda: gw.dispose((3, set(reals), [reals, None])))
        for tensor in found:
            self.free(tensor)

    @precondition(lambda self: self.some([0]))
    @rule(number=numbers)
    def forget(self, number):
        tensor = self.tensor(number)
        tensor.real = None
        self.drop_if_forgotten(tensor)

    @rule(task=numbers, callbacks=st.booleans())
    def open(self, task, callbacks):
        task = self.task(task)
        opened = None if callbacks else gw.tidy("random")
        real = task.run(gw.start_scope if callbacks else opened.__enter__)
        task.scope = Scope(task.scope, opened, real)
        task.own.append(task.scope)

    @precondition(lambda self: any(task.own for task in self.tasks))
    @rule(task=numbers, chosen=st.lists(numbers, max_size=3))
    def escape(self, task, chosen):
        scopes = [scope for each in self.tasks for scope in each.own]
        scope, found = scopes[task % len(scopes)], self.some(chosen)
        with rejecting_disposed(found):
            scope.real.escape([t.real for t in found])
            self.move_up(found, scope)

    @rule(task=numbers, raising=st.booleans(), chosen=st.lists(numbers, max_size=3))
    def close(self, task, raising, chosen):
        """The innermost scope ends; if it is one of callbacks, with a result."""
        task, found = self.task(task), self.some(chosen)
        if not task.own:
            if task.scope is None:
                with pytest.raises(ScopeError):
                    task.run(gw.end_scope)
            return
        scope = task.own[-1]
        if scope.opened is None:
            with rejecting_disposed(found):
                task.run(gw.end_scope, [t.real for t in found])
                self.move_up(found, scope)
        else:
            error = KeyError("random") if raising else None
            task.run(scope.opened.__exit__, type(error) if error else None, error, None)
        self.closed(task, scope)

    @rule(task=numbers, depth=st.integers(1, 2))
    def raise_through(self, task, depth):
        """A raise out of a scope frees what was opened inside and not closed."""
        task = self.task(task)
        scopes = task.own[-depth:]
        if len(scopes) == depth and scopes[0].opened is not None:
            task.run(scopes[0].opened.__exit__, KeyError, KeyError("random"), None)
            for scope in reversed(scopes):
                self.closed(task, scope)

    @rule(task=numbers, size=sizes, made=st.integers(1, 3), returned=numbers, raising=st.booleans())
    def call(self, task, size, made, returned, raising):
        """``tidy(fn)``: makes some, returns one of them, or raises."""
        task = self.task(task)

        def body():
            tensors = [gw.tensor([1.0] * size, device=self.device) for _ in range(made)]
            if raising:
                raise KeyError("random")
            return {"result": (tensors[returned % made],)}

        if raising:
            with pytest.raises(KeyError):
                task.run(gw.tidy, body)
        else:
            self.born(task, Buffer(size, 1.0), task.run(gw.tidy, body)["result"][0])

    @precondition(lambda self: len(self.tasks) < 6)
    @rule(task=numbers, inside=st.booleans())
    def spawn(self, task, inside):
        """A new task starts in the scope of another, which may end before it does."""
        if inside:
            self.open(task, False)
        task = self.task(task)
        self.tasks.append(Task(task.run(copy_context), task.scope))

    @rule()
    def trim(self):
        gw.trim(self.device)

    # --- what must hold after each step -----------------------------------------------------------

    @invariant()
    def the_right_tensors_live(self):
        for tensor in self.tensors:
            if tensor.real is not None:
                assert tensor.real.disposed is not tensor.alive
                assert tensor.real.kept is tensor.kept
                assert tensor.real.scope is (tensor.scope.real if tensor.scope else None)

    @invariant()
    def counters_are_right(self):
        alive = [tensor for tensor in self.tensors if tensor.alive]
        buffers = {id(tensor.buffer): tensor.buffer for tensor in alive}.values()
        for buffer in buffers:
            assert buffer.references == sum(tensor.buffer is buffer for tensor in alive)
        info = gw.memory(self.device)
        assert info.num_tensors - self.start.num_tensors == len(alive)
        assert info.num_buffers - self.start.num_buffers == len(buffers)
        assert info.num_bytes - self.start.num_bytes == sum(4 * b.size for b in buffers)
        used = sum(size_class(4 * buffer.size) for buffer in buffers)
        assert info.num_bytes_in_gpu - self.start.num_bytes_in_gpu == used

    @invariant()
    def scopes_are_counted(self):
        for task in self.tasks:
            depth, scope = 0, task.scope
            while scope is not None:
                depth, scope = depth + (not scope.closed), scope.parent
            assert task.run(lambda: gw.memory(self.device)).num_scopes == depth

    def teardown(self):
        for task in self.tasks:
            while task.own:
                self.close(self.tasks.index(task), False, [])
        gw.dispose([tensor.real for tensor in self.tensors])
        assert gw.memory(self.device).by_kind == self.start.by_kind


def test_random_programs(device, no_leak):
    Programs.device = device
    machine = Programs.TestCase
    machine.settings = settings(
        max_examples=400,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    machine().runTest()
