"""lm-eval's model class of this package against lm-eval's own `hf`, on the same tiny checkpoint."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError

LONG = "There was once a king who had a daughter, and she was as fair as the day. " * 9
PAIRS = [
    ("Once upon a time", " there was a king"),
    ("", "A wolf"),
    ("The wolf said ", "good day"),  # the space moves to the continuation
    ("A king<|endoftext|>Once", " upon"),
    (LONG, " The end"),  # cut on the left
    ("Once upon", " a"),
]
TEXTS = ["The king had three sons.", LONG, "", "日本"]
GREEDY = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
ASKED = [
    ("Once upon a time", GREEDY),
    ("A wolf", GREEDY),
    (LONG, GREEDY),
    ("The king", {"until": ["e"], "max_gen_toks": 12}),
    ("The king", {"until": "never", "max_gen_toks": 5, "temperature": 0.0}),
]


def requests(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]


@pytest.fixture(scope="module")
def models(device, checkpoint):
    """This package's model by lm-eval's registry, and `hf`."""
    from lm_eval.api.registry import get_model

    import gpt2_wgpu.integrations.lm_eval  # noqa: F401

    given = {"pretrained": str(checkpoint), "dtype": "float32"}
    of_the_command = {"batch_size": 2, "device": "cuda:0", "max_batch_size": None}
    ours = get_model("gpt2-wgpu").create_from_arg_obj(given, of_the_command)
    theirs = get_model("hf")(
        pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1
    )
    yield ours, theirs
    ours.close()


def test_log_likelihoods_equal_hf_s(models):
    found, expected = (lm.loglikelihood(requests("loglikelihood", PAIRS)) for lm in models)
    assert len(found) == len(PAIRS)
    for (nats, greedy), (their_nats, their_greedy) in zip(found, expected, strict=True):
        assert nats == pytest.approx(their_nats, abs=2e-3)
        assert greedy == bool(their_greedy)
    ours, theirs = models
    chosen = theirs.generate_until(requests("generate_until", [("A wolf", GREEDY)]))
    pair = requests("loglikelihood", [("A wolf", chosen[0])])
    assert ours.loglikelihood(pair)[0][1] and theirs.loglikelihood(pair)[0][1]


def test_rolling_log_likelihoods_equal_hf_s(models):
    given = [(text,) for text in TEXTS]
    found, expected = (
        lm.loglikelihood_rolling(requests("loglikelihood_rolling", given)) for lm in models
    )
    assert found == pytest.approx(expected, abs=5e-3)
    assert found[2] == 0


def test_texts_equal_hf_s(models):
    found, expected = (lm.generate_until(requests("generate_until", ASKED)) for lm in models)
    assert found == expected
    assert all(found[:3])


def test_a_sampled_text_does_not_depend_on_its_batch(models):
    ours, _ = models
    options = {"until": [], "max_gen_toks": 8, "do_sample": True, "top_k": 20, "seed": 5}
    prompts = [("Once", options), ("The old king", options), ("A", options)]
    together = ours.generate_until(requests("generate_until", prompts))
    ours.batch_size, size = 1, ours.batch_size
    alone = ours.generate_until(requests("generate_until", prompts))
    ours.batch_size = size
    assert together == alone
    assert together != ours.generate_until(
        requests("generate_until", [(text, options | {"seed": 6}) for text, _ in prompts])
    )


def test_impossible_options_are_rejected(models):
    ours, _ = models
    unknown = requests("generate_until", [("A", {"penalty_alpha": 0.6, "max_gen_toks": 4})])
    with pytest.raises(InvalidArgumentError, match="no generation option 'penalty_alpha'"):
        ours.generate_until(unknown)
    with pytest.raises(ContextLengthError, match="max_gen_toks = 256"):
        ours.generate_until(requests("generate_until", [("A", {"until": []})]))


def test_a_task_has_hf_s_results(models, device, tmp_path):
    """lm-eval's evaluator with a task of several choices, in files."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    lines = [
        {"q": "The king had three", "choices": [" sons", " wolf", " the"], "answer": i % 3}
        for i in range(7)
    ]
    (tmp_path / "tales.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "tales.yaml").write_text(
        "task: tales\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'tales.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: choices\ndoc_to_target: answer\n'
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    before = gw.memory(device)
    found, expected = (
        lm_eval.simple_evaluate(
            lm, tasks=["tales"], task_manager=tasks, bootstrap_iters=0, batch_size=2
        )["results"]["tales"]
        for lm in models
    )
    assert found["acc,none"] == expected["acc,none"] and 0 < found["acc,none"] < 1
    assert found["acc_norm,none"] == expected["acc_norm,none"]
    after = gw.memory(device)
    assert (after.num_tensors, after.num_bytes) == (before.num_tensors, before.num_bytes)


@pytest.mark.filterwarnings("ignore:running on the CPU")
def test_the_example_runs(device, capsys):
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "lm_eval_task.py"))
    assert capsys.readouterr().out == "accuracy: 1.00\n"
