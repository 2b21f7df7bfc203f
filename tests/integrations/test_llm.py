"""The plugin of `llm`: the real package and its command, with a tiny model."""

from __future__ import annotations

import asyncio
import json

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.sampling_parameters import PARAMETERS
from tests import llm_plugin

GREEDY = {"temperature": 0, "max_tokens": 6}

pytestmark = pytest.mark.filterwarnings("ignore:running on the CPU")


@pytest.fixture(scope="module")
def model(device, checkpoint, tmp_path_factory):
    """The model `gpt2-wgpu` of the plugin, whose weights are a tiny checkpoint's."""
    import llm

    llm_plugin.load()
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("GPT2_WGPU_MODEL", str(checkpoint))
        changed.setenv("LLM_USER_PATH", str(tmp_path_factory.mktemp("llm")))
        found = llm.get_model("gpt2-wgpu")
        yield found
        found.close()


@pytest.fixture
def command(model):
    """Runs `llm` with arguments; returns what it prints."""
    from click.testing import CliRunner
    from llm.cli import cli

    def run(*arguments, fails=False):
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert (done.exit_code != 0) == fails, done.output
        return done.output

    return run


def greedy(model, text, tokens=6):
    lm = model._loaded.get()
    return lm.generate(text, sampler="greedy", max_new_tokens=tokens, strip_prompt=True)


def options(**values):
    return [each for name, value in values.items() for each in ("-o", name, str(value))]


def test_every_preset_is_a_model(device):
    import llm

    from gpt2_wgpu.integrations.llm import register_models

    found = {}

    def register(model, async_model, aliases=()):
        assert isinstance(model, llm.Model) and isinstance(async_model, llm.AsyncModel)
        found.update(dict.fromkeys((model.model_id, *aliases), model))

    register_models(register)
    assert found.keys() == {"gpt2-wgpu", *(f"gpt2-wgpu/{name}" for name in gw.presets())}
    assert found["gpt2-wgpu/gpt2"].model_id == "gpt2-wgpu/gpt2_base_en"


def test_a_conversation_continues_its_text(model, command):
    first = command("-m", "gpt2-wgpu", "Once upon", *options(**GREEDY)).removesuffix("\n")
    assert first == greedy(model, "Once upon")
    second = command("-c", " and", *options(**GREEDY)).removesuffix("\n")
    assert second == greedy(model, f"Once upon{first} and")
    (log,) = json.loads(command("logs", "-n", "1", "--json"))
    assert log["response_json"]["finish_reason"] == "length"
    assert log["output_tokens"] == 6


def test_a_text_is_repeated_by_the_seed_in_the_log(model):
    first = model.prompt("Once", max_tokens=8)
    text = first.text()
    assert first.response_json["seed"] >= 0
    again = model.prompt("Once", max_tokens=8, seed=first.response_json["seed"], stream=False)
    assert again.text() == text
    other = model.prompt("Once", max_tokens=8, seed=first.response_json["seed"] + 1)
    assert other.text() != text


def test_a_stop_text_ends_the_answer(model):
    whole = greedy(model, "Once", 12)
    stop = whole[len(whole) // 2 :][:3]
    response = model.prompt("Once", stop=stop, temperature=0, max_tokens=12)
    assert response.text() == whole[: whole.index(stop)]
    assert response.response_json["finish_reason"] == "stop_text"


def test_the_async_model_gives_the_same_text(model):
    import llm

    async def answer():
        response = llm.get_async_model("gpt2-wgpu").prompt("Once", **GREEDY)
        return [piece async for piece in response], (await response.usage()).output

    pieces, tokens = asyncio.run(answer())
    assert "".join(pieces) == greedy(model, "Once") and len(pieces) > 1 and tokens == 6


def test_options_are_the_sampling_parameters(model, command):
    names = {each.name for each in PARAMETERS} - {"max_new_tokens"} | {"max_tokens", "stop"}
    assert {*model.Options.model_fields} == names
    message = command("-m", "gpt2-wgpu", "Once", *options(top_p=1.5), fails=True)
    assert "top_p" in message and "less than or equal to 1" in message


def test_a_system_prompt_is_rejected(command):
    message = command("-m", "gpt2-wgpu", "-s", "Be brief", "Once", fails=True)
    assert "no system prompt" in message


def test_an_answer_that_is_broken_off_leaves_no_memory(device, model):
    model.prompt("Once", max_tokens=1).text()
    before = gw.memory(device)
    for _ in range(2):
        pieces = iter(model.prompt("Once", max_tokens=40))
        next(pieces)
        pieces.close()
    assert (gw.memory(device).num_tensors, gw.memory(device).num_bytes) == (
        before.num_tensors,
        before.num_bytes,
    )
    model.close()
    assert gw.memory(device).num_tensors < before.num_tensors
