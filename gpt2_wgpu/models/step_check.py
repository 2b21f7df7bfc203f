"""Comparison of a recorded step with the same step run eagerly, dispatch by dispatch."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DeviceError
from gpt2_wgpu.models.decode_step import DecodeStep
from gpt2_wgpu.nn import SamplingState
from gpt2_wgpu.webgpu import Device, Recording
from gpt2_wgpu.webgpu.queue import Batch, Dispatch, open_recorder
from gpt2_wgpu.webgpu.storage import Storage

CHECKED_EVERY = 16  # steps
ADVANCED = (
    "token",
    "position",
    "finished",
    "recent",
    "maxima_and_counts",
    "texts",
    "odds",
)  # by a step, in place


class _Trace(NotCopyable):
    """The dispatches of a step as they come, with their buffers; none is run."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.was_read = False
        self.works: list[Dispatch] = []

    def add(self, work: Dispatch) -> None:
        for storage, _, _ in work.ranges.values():
            storage.retain()
        self.works.append(work)

    def close(self) -> None:
        for work in self.works:
            for storage, _, _ in work.ranges.values():
                storage.release()
        self.works = []


async def check_step(recording: Recording, step: DecodeStep, state: SamplingState) -> None:
    """Run one step twice from the same ``state``: by ``recording``, then eagerly.

    Both begin with zeros in the buffers that only they use, so every byte is comparable. Raises
    ``DeviceError`` that names the first dispatch which differs.
    """
    device = recording.device
    queue, trace = device.queue, _Trace(device)
    advanced = [x for name in ADVANCED if (x := getattr(state, name)) is not None]
    token = open_recorder.set(trace)
    try:
        try:
            await step.run()
        finally:
            open_recorder.reset(token)
        _compare_calls(recording.recorded, trace.works)
        before = await queue.read([(x.storage, 0, x.nbytes) for x in advanced])
        own = {id(storage) for storage in recording.workspace}
        expected = []
        for command, work, new in zip(
            recording.commands, recording.recorded, _first_written(trace.works), strict=True
        ):
            for storage in {work.ranges[name][0] for name in new}:
                if id(storage) in own:  # it may have served an earlier tensor
                    _write_zeros(device, storage)
            queue.replay(Batch([command]))
            expected.append(await queue.read(_written(work)))
        for x, values in zip(advanced, before, strict=True):
            queue.upload(x.storage, 0, values)
        _clear(device, trace.works)
        for place, (work, wanted) in enumerate(zip(trace.works, expected, strict=True)):
            queue.add(work)
            if await queue.read(_written(work)) != wanted:
                raise DeviceError(
                    f"{_name(place, work)} gives other values recorded than run eagerly: its "
                    "recorded parameters or buffers are not those of the step"
                )
    finally:
        trace.close()


def _compare_calls(recorded: Sequence[Dispatch], eager: Sequence[Dispatch]) -> None:
    for place, (one, other) in enumerate(zip(recorded, eager, strict=False)):
        if (one.kernel, one.grid, one.params) != (other.kernel, other.grid, other.params):
            if (one.kernel, one.grid) == (other.kernel, other.grid):
                raise DeviceError(
                    f"{_name(place, one)} was recorded with other parameters than it has now: does "
                    "a logits processor or a replaced method use a counter, a random number or "
                    "another value that changes?"
                )
            raise DeviceError(
                f"{_name(place, one)} was recorded with grid {one.grid}, but run eagerly the step "
                f"calls {other.label.kernel} with grid {other.grid}"
            )
    if len(recorded) != len(eager):
        raise DeviceError(
            f"the recorded step has {len(recorded)} dispatches, run eagerly it has {len(eager)}"
        )


def _name(place: int, work: Dispatch) -> str:
    return f"dispatch {place} of the step ({work.label.kernel})"


def _written(work: Dispatch) -> list[tuple[Storage, int, int]]:
    """The ranges that a dispatch may write."""
    bindings = work.kernel.signature.bindings
    return [found for name, found in work.ranges.items() if bindings[name][1] == "storage"]


def _first_written(works: Sequence[Dispatch]) -> list[list[str]]:
    """Return for each dispatch the bindings by which it writes a buffer that none has had before.

    In eager ``works`` whose buffers are all retained, so that each tensor has its own.
    """
    known: set[int] = set()
    found = []
    for work in works:
        bindings = work.kernel.signature.bindings
        new = {name: id(storage) for name, (storage, _, _) in work.ranges.items()}
        new = {name: key for name, key in new.items() if key not in known}
        found.append([name for name in new if bindings[name][1] == "storage"])
        known |= set(new.values())
    return found


def _clear(device: Device, works: Sequence[Dispatch]) -> None:
    """Write zeros to the buffers that only ``works`` use and that are written before they are read.

    Those with one reference for each use.
    """
    uses: dict[int, int] = {}
    for work in works:
        for storage, _, _ in work.ranges.values():
            uses[id(storage)] = uses.get(id(storage), 0) + 1
    for work, new in zip(works, _first_written(works), strict=True):
        for storage in {work.ranges[name][0] for name in new}:
            if storage.references == uses[id(storage)]:
                _write_zeros(device, storage)


def _write_zeros(device: Device, storage: Storage) -> None:
    device.queue.upload(storage, 0, bytes(-(-storage.nbytes // 4) * 4))
