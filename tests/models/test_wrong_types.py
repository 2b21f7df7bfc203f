"""Values of a wrong type, passed to each public entry point: only errors of `gpt2_wgpu.errors`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import ops, samplers
from gpt2_wgpu.errors import GPT2WGPUError, InvalidArgumentError

VALUES: list[Any] = [
    None, "x", "", 3, -1, 1.5, True, b"x", [1, "a"], [[1], [2, 3]], {"a": 1}, object(), len,
]  # fmt: skip
Call = Callable[[Any, Any], Any]

CALLS: dict[str, Call] = {
    "generate": lambda lm, bad: lm.generate(bad, 5),
    "generate max_length": lambda lm, bad: lm.generate("a", bad),
    "generate stop_token_ids": lambda lm, bad: lm.generate("a", 4, bad),
    "generate stop_texts": lambda lm, bad: lm.generate("a", 4, stop_texts=bad),
    "generate sampler": lambda lm, bad: lm.generate("a", 4, sampler=bad),
    "generate seed": lambda lm, bad: lm.generate("a", 4, seed=bad),
    "generate max_new_tokens": lambda lm, bad: lm.generate("a", 4, max_new_tokens=bad),
    "generate allowed_special": lambda lm, bad: lm.generate("a", 4, allowed_special=bad),
    "stream": lambda lm, bad: list(lm.stream(bad, 2)),
    "perplexity": lambda lm, bad: lm.perplexity(bad),
    "perplexity stride": lambda lm, bad: lm.perplexity("a b c", bad),
    "divergence": lambda lm, bad: lm.divergence("a b c", bad),
    "compile": lambda lm, bad: lm.compile(bad),
    "compile logits_processors": lambda lm, bad: lm.compile("greedy", logits_processors=bad),
    "call": lambda lm, bad: lm(bad),
    "backbone": lambda lm, bad: lm.backbone(bad),
    "build_cache": lambda lm, bad: lm.build_cache(bad),
    "call_with_cache": lambda lm, bad: lm.call_with_cache([[1]], bad, 0),
    "tokenizer": lambda lm, bad: lm.preprocessor.tokenizer(bad),
    "detokenize": lambda lm, bad: lm.preprocessor.tokenizer.detokenize(bad),
    "preprocessor": lambda lm, bad: lm.preprocessor(bad),
    "generate_preprocess": lambda lm, bad: lm.preprocessor.generate_preprocess(bad),
    "generate_postprocess": lambda lm, bad: lm.preprocessor.generate_postprocess(bad),
    "GPT2CausalLM": lambda lm, bad: gw.GPT2CausalLM(bad),
    "StartEndPacker": lambda lm, bad: gw.StartEndPacker(bad),
    "StartEndPacker call": lambda lm, bad: gw.StartEndPacker(4)(bad),
    "from_preset": lambda lm, bad: gw.GPT2CausalLM.from_preset(bad),
    "from_preset dtype": lambda lm, bad: lm.from_preset("fairytales", dtype=bad or 0),
    "tensor": lambda lm, bad: gw.tensor(bad),
    "tensor dtype": lambda lm, bad: gw.tensor([1.0], bad),
    "tensor device": lambda lm, bad: gw.tensor([1.0], device=bad),
    "assignment": lambda lm, bad: gw.tensor([1.0, 2.0]).__setitem__(0, bad),
    "sampler next": lambda lm, bad: samplers.get("greedy")(lambda *_: bad, [[1, 2]]),
    "sampler logits": lambda lm, bad: samplers.get("greedy")(lambda *_: (bad, 0, 0), [[1, 2]]),
    "view": lambda lm, bad: gw.tensor([1.0, 2.0]).view(bad),
    "dispose": lambda lm, bad: gw.dispose(bad),
    "keep": lambda lm, bad: gw.keep(bad),
    "profile": lambda lm, bad: gw.profile(bad if bad is not len else None),
    "set_default_device": lambda lm, bad: gw.set_default_device(bad or 0),
    "TopK": lambda lm, bad: samplers.TopK(bad),
    "TopP": lambda lm, bad: samplers.TopP(bad),
    "Random": lambda lm, bad: samplers.Random(temperature=bad),
    "get": lambda lm, bad: samplers.get(bad),
}


def operations() -> Iterator[Any]:
    """Yield the operations with each of their required arguments."""
    for name in dir(ops):
        operation = getattr(ops, name)
        if not inspect.isfunction(operation) or name.startswith("_"):
            continue
        parameters = inspect.signature(operation).parameters.values()
        needed = [each for each in parameters if each.default is each.empty and each.kind == 1]
        for place, each in enumerate(needed):
            yield pytest.param(operation, len(needed), place, id=f"{name} {each.name}")


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in CALLS.items()])
def test_entry_points(tales: Any, call: Call) -> None:
    for bad in VALUES:
        lm = gw.GPT2CausalLM(tales.backbone, tales.preprocessor)  # `tales` stays as it is
        with gw.tidy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expect_own_error(lambda: call(lm, bad), bad)  # noqa: B023 - called at once


@pytest.mark.parametrize(("operation", "count", "place"), list(operations()))
def test_operations(device: Any, operation: Callable[..., Any], count: int, place: int) -> None:
    for bad in VALUES:
        with gw.tidy():
            given: list[Any] = [gw.tensor([[1.0, 2.0], [3.0, 4.0]], device=device)] * count
            given[place] = bad
            expect_own_error(lambda: operation(*given), bad)  # noqa: B023 - called at once


ON_PROGRESS: list[Callable[[Any], Any]] = [
    lambda lm: lm.from_preset("fairytales", on_progress=5),
    lambda lm: gw.GPT2Backbone.from_preset("fairytales", on_progress=5),
    lambda lm: gw.convert("fairytales", "nowhere", "q8", on_progress=5),
    lambda lm: next(gw.generate_batches(lm, ["a"], 4, on_progress=5)),  # type: ignore[call-overload]
]


@pytest.mark.parametrize("call", ON_PROGRESS)
def test_on_progress_is_a_function(tales: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="on_progress must be a function, not 5"):
        call(tales)


def expect_own_error(call: Callable[[], Any], bad: Any) -> None:
    """Call ``call()``; pytest fails for an error that is not one of ours."""
    try:
        call()
    except GPT2WGPUError as error:
        assert len(str(error)) < 500
    except Exception as error:
        pytest.fail(f"{bad!r} gives {type(error).__name__}: {error}")
