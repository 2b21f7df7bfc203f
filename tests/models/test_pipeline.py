"""Each step of the named pipeline can be replaced: on an object, in a subclass, sync or async."""

from __future__ import annotations

import asyncio
import copy
import inspect
from unittest.mock import patch

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, ShapeError
from tests.memory import tiny

pytestmark = pytest.mark.usefixtures("no_leak")

LENGTH = 12
PROMPT = "abc"
X, Y = ord("x") - 33, ord("y") - 33  # ids of two letters in tiny's vocabulary


@pytest.fixture(scope="module")
def lm(device):
    lm = tiny.model(device)
    yield lm
    lm.dispose()


# --- replacements: each takes the original method and its arguments, and leaves a mark ------------


def make_generate_function(original):
    function = original()
    return lambda inputs, stop_token_ids=None: with_x_last(function(inputs, stop_token_ids))


def generate_step(original, inputs, stop_token_ids=None):
    return with_x_last(original(inputs, stop_token_ids))


def with_x_last(output):
    ids = output["token_ids"]  # lists where there is no NumPy
    for row in ids if hasattr(ids[0], "__len__") else [ids]:
        row[-1] = X
    return output


def build_cache(original, token_ids):
    """Keys and values of another prompt."""
    assert len(token_ids[0]) == LENGTH
    return original([[Y] * LENGTH for _ in token_ids])


def call_with_cache(original, token_ids, cache, cache_update_index):
    logits, hidden, cache = original(token_ids, cache, cache_update_index)
    return prefer(logits, X), hidden, cache


def prefer(logits, token):
    """``logits`` with ``token`` ahead of all others; as KerasHub's test_early_stopping does it."""
    update = gw.ops.ones_like(logits)[:, :, token] * 1.0e9
    update = gw.ops.expand_dims(update, axis=-1)
    return gw.ops.slice_update(logits, (0, 0, token), update)


def generate_preprocess(original, x, sequence_length=None):
    x = x.upper() if isinstance(x, str) else [text.upper() for text in x]
    return original(x, sequence_length=sequence_length)


def generate_postprocess(original, x):
    text = original(x)
    return f"<{text}>" if isinstance(text, str) else [f"<{one}>" for one in text]


STEPS = {
    step.__name__: step
    for step in (
        make_generate_function,
        generate_step,
        build_cache,
        call_with_cache,
        generate_preprocess,
        generate_postprocess,
    )
}
OF_TEXT = ("generate_preprocess", "generate_postprocess")
WHOLE = ("make_generate_function", "generate_step", "generate_postprocess")


def replaced(lm, name, where, kind):
    """A model like ``lm`` that runs the replacement of step ``name``."""
    model, preprocessor = copy.copy(lm), copy.copy(lm.preprocessor)
    model.preprocessor = preprocessor
    owner, step = preprocessor if name in OF_TEXT else model, STEPS[name]
    base = type(owner)

    def method(*args, **kwargs):
        return step(*args, **kwargs)

    async def method_async(*args, **kwargs):
        return step(*args, **kwargs)

    call = method if kind == "sync" else method_async
    attribute = f"{name}_async" if kind == "its async form" else name

    def original_of(found):
        """The same step before it was replaced, as a blocking function."""
        if not hasattr(found, attribute):
            return getattr(found, name)
        original = getattr(found, attribute)
        return lambda *args, **kwargs: done(original(*args, **kwargs))

    if where == "object":
        original = original_of(owner)
        setattr(owner, attribute, lambda *args, **kwargs: call(original, *args, **kwargs))
    else:

        def in_class(self, *args, **kwargs):
            return call(original_of(super(owner.__class__, self)), *args, **kwargs)

        owner.__class__ = type(f"With{name}", (base,), {attribute: in_class})
    return model


def done(result):
    return gw.webgpu.sync(result, "") if inspect.isawaitable(result) else result


async def streamed(lm):
    return [
        piece async for piece in lm.stream(PROMPT, max_new_tokens=LENGTH - 4, stop_token_ids=None)
    ]


@pytest.mark.parametrize("kind", ["sync", "async", "its async form"])
@pytest.mark.parametrize("where", ["object", "subclass"])
@pytest.mark.parametrize("name", STEPS)
def test_a_replaced_step_runs(lm, name, where, kind):
    expected = {
        "make_generate_function": lambda text: text.endswith("x"),
        "generate_step": lambda text: text.endswith("x"),
        "build_cache": lambda text: text == plain_after_y(lm),
        "call_with_cache": lambda text: text == PROMPT + "x" * (LENGTH - 4),
        "generate_preprocess": lambda text: text == lm.generate("ABC", LENGTH, None),
        "generate_postprocess": lambda text: text == f"<{lm.generate(PROMPT, LENGTH, None)}>",
    }[name]
    model = replaced(lm, name, where, kind)
    text = model.generate(PROMPT, LENGTH, None)
    assert expected(text)
    assert text != lm.generate(PROMPT, LENGTH, None)
    assert model.generate([PROMPT, "a"], LENGTH, None)[0] == text
    assert asyncio.run(model.generate_async(PROMPT, LENGTH, None)) == text
    stripped = model.generate(PROMPT, LENGTH, None, strip_prompt=True)
    pieces = list(model.stream(PROMPT, max_new_tokens=LENGTH - 4, stop_token_ids=None))
    assert "".join(pieces) == stripped
    assert len(pieces) == 1 if name in WHOLE else len(pieces) > 1
    assert asyncio.run(streamed(model)) == pieces
    if name not in OF_TEXT:
        inputs = lm.preprocessor.generate_preprocess(PROMPT, LENGTH)
        output = model.generate(inputs, stop_token_ids=None)
        assert lm.preprocessor.generate_postprocess(output) == text
        output = asyncio.run(model.generate_async(inputs, stop_token_ids=None))
        assert lm.preprocessor.generate_postprocess(output) == text


def plain_after_y(lm):
    """The text that greedy search writes after PROMPT, behind keys and values of other tokens."""
    (ids,) = lm.preprocessor.encode_prompts([PROMPT])
    with gw.tidy():
        _, cache = lm.build_cache([[Y] * LENGTH])
        while len(ids) < LENGTH:
            logits, _, _ = lm.call_with_cache([[ids[-1]]], cache, len(ids) - 1)
            ids.append(gw.ops.argmax(logits).tolist()[0][0])
    return lm.preprocessor.tokenizer.decode_shown(ids)


@pytest.mark.parametrize("where", ["object", "subclass"])
def test_build_cache_may_have_kerashubs_name(lm, where):
    model = copy.copy(lm)
    if where == "object":
        model._build_cache = lambda ids: build_cache(lm.build_cache, ids)
    else:

        class Replaced(gw.GPT2CausalLM):
            def _build_cache(self, token_ids):
                return build_cache(super()._build_cache, token_ids)

        model.__class__ = Replaced
    assert model.generate(PROMPT, LENGTH, None) == plain_after_y(lm)


# --- as KerasHub's tests use it -------------------------------------------------------------------


def test_an_end_token_that_is_forced_stops_at_once(lm):
    """KerasHub's test_early_stopping: the prompts come back as they were."""
    original = lm.call_with_cache

    def wrapper(*args, **kwargs):
        logits, hidden_states, cache = original(*args, **kwargs)
        end = lm.preprocessor.tokenizer.end_token_id
        return prefer(logits, end), hidden_states, cache

    prompts = ["airplane at airport", "airplane"]
    with patch.object(lm, "call_with_cache", wraps=wrapper) as calls:
        assert lm.generate(prompts) == prompts
    assert calls.call_count == 2  # the prompt, and the step that is recorded
    assert lm.generate(prompts) != prompts


def test_the_generate_function_is_kept_until_compile(lm):
    model = copy.copy(lm)
    assert model.generate_function is None
    model.generate(PROMPT, LENGTH)
    function = model.generate_function
    model.generate(PROMPT, LENGTH)
    assert model.generate_function is function is model.make_generate_function()
    model.compile(sampler="greedy")
    assert model.generate_function is None


def test_a_function_that_the_user_stores_is_kept_too(lm):
    """As KerasHub's own make_generate_function does it."""

    class Storing(gw.GPT2CausalLM):
        made = 0

        def make_generate_function(self):  # type: ignore[override]
            if self.generate_function is None:
                self.made += 1
                self.generate_function = self.generate_step
            return self.generate_function

    model = Storing(lm.backbone, lm.preprocessor)
    model.compile(lm.sampler)
    for _ in range(2):
        assert model.generate(PROMPT, LENGTH, None) == lm.generate(PROMPT, LENGTH, None)
    assert model.made == 1


# --- a replaced call_with_cache -------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [
    "greedy",
    gw.samplers.TopK(5, seed=1, repetition_penalty=1.4, presence_penalty=0.3),
    gw.samplers.TopP(0.9, seed=2, frequency_penalty=0.5),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("reads", [False, True], ids=["recorded", "eager"])
def test_one_that_changes_nothing_gives_the_same_texts(lm, sampler, reads):
    """In the same sampler, with penalties; recorded, or run for every token if it reads values."""
    calls = []
    model = copy.copy(lm)
    original = model.call_with_cache

    def same(token_ids, cache, cache_update_index):
        logits, hidden, cache = original(token_ids, cache, cache_update_index)
        assert hidden.shape == (*logits.shape[:2], 16)
        if reads:
            assert max(map(max, token_ids.tolist())) < logits.shape[2]
        calls.append(logits.shape)
        return logits, hidden, cache

    prompts = ["abc", "a", "abcde"]

    def texts(of):
        of.compile(copy.deepcopy(gw.samplers.get(sampler)))
        return of.generate(prompts, 20, None), "".join(
            of.stream("ab", max_new_tokens=10, stop_token_ids=None)
        )

    expected = texts(copy.copy(lm))
    model.call_with_cache = same
    assert texts(model) == expected
    steps = [shape for shape in calls if shape[1] == 1]
    assert len(steps) == (18 + 10 if reads else 2)


def test_an_eager_step_is_not_run_for_more_tokens_than_are_asked_for(lm):
    model, steps = copy.copy(lm), []
    original = model.call_with_cache

    def looking(token_ids, cache, cache_update_index):
        if token_ids.shape[1] == 1:
            steps.append(token_ids.tolist())
        return original(token_ids, cache, cache_update_index)

    model.call_with_cache = looking
    stream = model.stream("abc", max_new_tokens=20, stop_token_ids=None)
    for _ in range(3):
        next(stream)
        assert len(steps) == stream.stats.new_tokens < 10
    stream.close()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda logits, hidden, cache: logits, "must return .logits, hidden_states, cache."),
        (
            lambda logits, hidden, cache: (hidden, hidden, cache),
            r"logits as a Tensor of shape \(1, 1, 257\)",
        ),
        (lambda logits, hidden, cache: (logits, hidden, None), "must return the cache that it"),
    ],
)
def test_a_wrong_result_is_an_error(lm, result, message):
    model = copy.copy(lm)
    model.call_with_cache = lambda *args: result(*lm.call_with_cache(*args))
    with pytest.raises(ShapeError, match=message):
        model.generate("a", LENGTH)


def test_ids_and_positions_may_be_tensors(lm):
    ids = [[1, 2, 3], [4, 5, 6]]
    with gw.tidy():
        caches = [lm.backbone.new_cache(2, 8) for _ in range(3)]
        lm.call_with_cache(ids, caches[0], 0)
        lm.call_with_cache(gw.tensor(ids, "int32"), caches[1], gw.tensor(0, "int32"))
        lm.call_with_cache(gw.tensor(ids, "uint32"), caches[2], gw.tensor([0, 0], "uint32"))
        expected, *found = [
            lm.call_with_cache([[7], [8]], cache, [3, 2])[0].tolist() for cache in caches
        ]
        assert found == [expected] * 2
        index = gw.tensor([3, 2], "uint32")
        again = lm.call_with_cache(gw.tensor([[7], [8]], "uint32"), caches[0], index)[0]
        assert again.tolist() == expected
        for wrong in (gw.tensor([[1.0], [2.0]]), gw.tensor([1, 2], "int32")):
            with pytest.raises(InvalidArgumentError, match="token_ids must be integers of shape"):
                lm.call_with_cache(wrong, caches[0], 0)
        with pytest.raises(InvalidArgumentError, match="cache_update_index must be integers"):
            lm.call_with_cache([[7], [8]], caches[0], gw.tensor([0, 0, 0], "int32"))


def test_a_stream_closed_while_its_prompt_is_awaited_ends(lm):
    began = []

    async def preprocess(prompt, sequence_length=None):
        began.append(prompt)
        await asyncio.sleep(0.01)
        return original(prompt, sequence_length)

    async def read_and_close():
        stream = lm.stream(PROMPT)
        reading = asyncio.create_task(anext(stream, None))
        while not began:
            await asyncio.sleep(0)
        stream.close()
        return await asyncio.wait_for(reading, 20), stream.stats.finish_reason

    original = lm.preprocessor.generate_preprocess
    with patch.object(lm.preprocessor, "generate_preprocess", preprocess):
        assert asyncio.run(read_and_close()) == (None, "aborted")


def test_arguments_for_training_have_no_effect_and_say_so(lm):
    with pytest.warns(UserWarning, match="does not train"):
        lm.compile("greedy", optimizer="adam", loss="auto")
    assert isinstance(lm.sampler, gw.samplers.Greedy)


def test_a_replaced_call_with_cache_may_return_an_array_as_logits(lm, no_leak):
    lm.compile("greedy")
    original = lm.call_with_cache

    def likes_x(token_ids, cache, index):
        logits, hidden, cache = original(token_ids, cache, index)
        rows = logits.tolist()
        logits.dispose()
        for row in rows:
            row[0][X] = 1e9
        return Array(rows), hidden, cache

    with patch.object(lm, "call_with_cache", likes_x):
        assert lm.generate(PROMPT, max_length=8) == PROMPT + "xxxx"


class Array:
    """An array of another library."""

    def __init__(self, values):
        self._values = values

    def tolist(self):
        return self._values


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "serialised"])
def test_from_config_makes_a_model_of_the_same_configuration(lm, wrapped):
    config = lm.get_config()
    if wrapped:  # as Keras serialises objects
        config = {name: {"class_name": name, "config": value} for name, value in config.items()}
    again = gw.GPT2CausalLM.from_config(config)
    assert again.get_config() == lm.get_config()
    again.dispose()
    with pytest.raises(InvalidArgumentError, match="with a backbone"):
        gw.GPT2CausalLM.from_config({"preprocessor": None})
