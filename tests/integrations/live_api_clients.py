"""Clients of OpenAI's API that others wrote: lm-eval, LangChain and the command `llm`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import gpt2_wgpu as gw
from tests.integrations.live_lm_eval import ASKED, requests
from tests.server.test_process import running

PAIRS = [
    ("Once upon a time", " there was a king"),
    ("A wolf", " said: good day"),
    ("The king", "'s daughter"),
]


@pytest.fixture(scope="module")
def address(checkpoint):
    """The address of the API of the tiny checkpoint, in a process of its own."""
    with running(str(checkpoint)) as (_, address, _):
        yield address


@pytest.fixture(scope="module")
def greedy(device, checkpoint):
    """The greedy text after a prompt, of the library."""
    with gw.GPT2CausalLM.from_preset(checkpoint, dtype="float32") as lm:
        yield lambda prompt, tokens: lm.generate(
            prompt, max_new_tokens=tokens, sampler="greedy", strip_prompt=True
        )


@pytest.mark.parametrize("concurrent", [1, 4])
def test_lm_eval_gets_the_results_of_hf(address, checkpoint, concurrent):
    from lm_eval.api.registry import get_model

    api = get_model("local-completions")(
        model=str(checkpoint),
        base_url=f"{address}/completions",
        tokenizer=str(checkpoint),
        tokenizer_backend="huggingface",
        max_length=64,
        num_concurrent=concurrent,
        batch_size=2,
    )
    hf = get_model("hf")(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1)
    found, expected = (lm.loglikelihood(requests("loglikelihood", PAIRS)) for lm in (api, hf))
    for (nats, best), (their_nats, their_best) in zip(found, expected, strict=True):
        assert nats == pytest.approx(their_nats, abs=2e-3)
        assert best == their_best
    asked = [each for each in ASKED if len(each[0]) < 100]
    found, expected = (lm.generate_until(requests("generate_until", asked)) for lm in (api, hf))
    assert found == expected and any(found)


def test_langchain(address, checkpoint, greedy):
    from langchain_openai import OpenAI

    llm = OpenAI(
        model=str(checkpoint), base_url=address, api_key="none", temperature=0, max_tokens=9
    )
    prompts = ["The king", "A wolf"]
    expected = [greedy(prompt, 9) for prompt in prompts]
    assert llm.batch(prompts) == expected
    assert "".join(llm.stream(prompts[0])) == expected[0]


def test_llm(address, checkpoint, greedy, tmp_path):
    """As an OpenAI-compatible model, with streaming and without."""
    models = [
        {
            "model_id": "tiny",
            "model_name": str(checkpoint),
            "api_base": address,
            "completion": True,
        }
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    common = ["-o", "temperature", "0", "-o", "max_tokens", "9", "--key", "none"]
    for options in ([], ["--no-stream"]):
        done = subprocess.run(
            [sys.executable, "-m", "llm", "-m", "tiny", "The king", *common, *options],
            capture_output=True,
            text=True,
            env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.removesuffix("\n") == greedy("The king", 9)
