"""Times of a decode step: GPU time and memory traffic of each dispatch, which notebooks show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from gpt2_wgpu.diagnostics.bandwidth import known_read_bandwidth_async
from gpt2_wgpu.diagnostics.profiling import Row, profile_async
from gpt2_wgpu.errors import BusyError, InvalidArgumentError, OutOfGPUMemoryError
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.samplers import GreedySampler
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.tensors.scopes import tensors_in
from gpt2_wgpu.text.token_arrays import rows_of_ids
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import Device, sync

STEPS = 32  # browsers round timestamps to 100 µs; their mean over this many steps is much closer


@dataclass(frozen=True)
class DispatchTime:
    """One dispatch of a decode step.

    Attributes:
        kernel: name of its shader in ``shaders/``.
        shapes: shape of each binding.
        workgroups: grid.
        seconds: mean GPU time, in a pass of its own; None without timestamp queries.
        nbytes: bytes read and written, each binding once.
    """

    kernel: str
    shapes: dict[str, tuple[int, ...]]
    workgroups: tuple[int, int, int]
    seconds: float | None
    nbytes: float

    @property
    def bytes_per_second(self) -> float | None:
        """Memory traffic per second; None without a time."""
        return self.nbytes / self.seconds if self.seconds else None


@dataclass(frozen=True)
class StepTimes:
    """Dispatches of a decode step in their order; a notebook shows a table.

    Attributes:
        steps: number of steps that the times are means of.
        position: position of the first of them.
        dispatches: those of one step.
        peak_read_bandwidth: bytes per second that the adapter can read; None if not measured.
        peak_error: why it could not be measured; None if it was, or was not asked for.
    """

    steps: int
    position: int
    dispatches: tuple[DispatchTime, ...]
    peak_read_bandwidth: float | None = None
    peak_error: str | None = None

    @property
    def bandwidth_utilisation(self) -> float | None:
        """Bytes per second of all dispatches, by the peak read bandwidth; None without either.

        Above 1 where the weights fit into a cache.
        """
        if not self.seconds or self.peak_read_bandwidth is None:
            return None
        return self.nbytes / self.seconds / self.peak_read_bandwidth

    @property
    def seconds(self) -> float | None:
        """GPU time of all dispatches; None without timestamp queries."""
        times = [each.seconds for each in self.dispatches]
        return None if None in times else sum(each for each in times if each is not None)

    @property
    def nbytes(self) -> float:
        """Bytes read and written by all dispatches."""
        return sum(each.nbytes for each in self.dispatches)

    def _repr_html_(self) -> str:
        rows, share = "".join(map(_html_row, self.dispatches)), self.bandwidth_utilisation
        peak = "" if share is None else f", {share:.0%} of the peak read bandwidth"
        if self.peak_error is not None:
            peak = f"; the peak read bandwidth was not measured: {escape(self.peak_error)}"
        return (
            f"<table><caption>Means of {self.steps} decode steps{peak}</caption><tr><th>kernel</th>"
            f"<th>weights</th><th>µs</th><th>kB</th><th>GB/s</th></tr>{rows}</table>"
        )


def step_times(
    lm: CausalLM, inputs: str | Sequence[int], steps: int = STEPS, *, peak: bool = False
) -> StepTimes:
    """Measure the dispatches of a decode step after a text; blocks (``step_times_async``).

    Args:
        lm: the model; its calls in other threads and tasks wait meanwhile.
        inputs: text (with start token) or ids. Of one that leaves no room for the steps the end.
        steps: number of greedy steps to average over.
        peak: whether to measure the adapter's peak read bandwidth, too: once for each device, with
            up to 512 MiB of its memory; ``peak_error`` of the result says if there is too little.

    Returns:
        The dispatches with times and bytes.

    Raises:
        InvalidArgumentError: the text has no token, or there are more steps than the context.
        BusyError: other work ran on the device meanwhile, or it is being profiled.
    """
    return sync(step_times_async(lm, inputs, steps, peak=peak), "step_times_async(...)")


async def step_times_async(
    lm: CausalLM, inputs: str | Sequence[int], steps: int = STEPS, *, peak: bool = False
) -> StepTimes:
    """Async counterpart of :func:`step_times`."""
    most = lm.backbone.config.n_positions - 2
    steps = integer("steps", steps, 1, most)
    ids = _ids_of(lm, inputs)
    if not ids:
        raise InvalidArgumentError("step_times: no token is given")
    ids = ids[-(most + 1 - steps) :]
    turn = lm.turns.turn(None)
    try:
        await turn.take()
        queue = lm.device.queue
        await _continued(lm, ids, 1)  # records the step
        before = queue.dispatches
        await _continued(lm, ids, 1)
        alone = queue.dispatches - before  # the prompt and a step
        found = await profile_async(lambda: _continued(lm, ids, steps + 1), lm.device)
        most_bytes, error = await _peak(lm.device) if peak else (None, None)
    finally:
        turn.give_back()
    rows = found.rows[alone:]
    size = len(rows) // steps
    if (
        size == 0
        or len(rows) % steps
        or any(a.kernel != b.kernel for a, b in zip(rows, rows[size:], strict=False))
    ):
        raise BusyError("the device did other work during the measurement: measure again")
    token_bytes, tokens = _token_bytes(lm), len(ids) + (steps + 1) / 2
    times = (_mean(rows[i::size], token_bytes, tokens) for i in range(size))
    return StepTimes(steps, len(ids), tuple(times), most_bytes, error)


def _ids_of(lm: CausalLM, inputs: str | Sequence[int]) -> list[int]:
    if not isinstance(inputs, str):
        return rows_of_ids([inputs], lm.backbone.config.vocab_size)[0]
    if lm.preprocessor is None:
        raise InvalidArgumentError("step_times: this model has no preprocessor: give token ids")
    return lm.encode_prompts([inputs], lm.preprocessor)[0]


async def _peak(device: Device) -> tuple[float | None, str | None]:
    """Return the peak read bandwidth, or None and why: it needs memory that a step does not."""
    try:
        return await known_read_bandwidth_async(device), None
    except OutOfGPUMemoryError as error:
        return None, str(error)


async def _continued(lm: CausalLM, ids: list[int], tokens: int) -> None:
    """Continue the ids greedily, without stop tokens."""
    options = GreedySampler().next_options()
    generation = Generation(lm, [ids], [len(ids) + tokens], options, [])
    try:
        while not generation.done:
            await generation.advance()
    finally:
        generation.close()


def _token_bytes(lm: CausalLM) -> float:
    """Return the bytes of the keys of a token in one layer."""
    with tidy("traffic"):
        cache = lm.backbone.new_cache(1, 8)
        buffers = {id(tensor.storage): tensor.storage for tensor in tensors_in(cache)}
        size = sum(storage.nbytes for storage in buffers.values())
        return size / cache.capacity / lm.backbone.num_layers / 2


def _mean(rows: Sequence[Row], token_bytes: float, tokens: float) -> DispatchTime:
    """Return the mean of one dispatch of all steps."""
    first = rows[0]
    times = [row.seconds for row in rows if row.seconds is not None]
    seconds = fmean(times) if len(times) == len(rows) else None
    nbytes = _traffic(first, token_bytes, tokens)
    return DispatchTime(first.kernel, first.shapes, first.workgroups, seconds, nbytes)


def _traffic(row: Row, token_bytes: float, tokens: float) -> float:
    """Return the bytes that a dispatch reads and writes, each binding once.

    ``token_bytes``: of the keys of a token in one layer, as many as of its values; ``tokens``:
    number of tokens in the cache. Other bindings count whole, of an embedding one row.
    """
    total = 0.0
    for name, nbytes in row.nbytes.items():
        if name in ("keys", "values"):
            total += token_bytes * tokens
        elif name == "cache":  # of a product that writes keys and values
            total += 2 * token_bytes
        elif row.kernel == "embed" and name in ("weights", "wpe"):
            total += nbytes / row.shapes[name][0]
        else:
            total += nbytes
    return total


def _html_row(time: DispatchTime) -> str:
    weights = " x ".join(map(str, time.shapes.get("weights", ())))
    seconds, rate = time.seconds, time.bytes_per_second
    cells = [
        escape(time.kernel),
        weights,
        "" if seconds is None else f"{seconds * 1e6:.0f}",
        f"{time.nbytes / 1e3:,.0f}",
        "" if rate is None else f"{rate / 1e9:.2f}",
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
