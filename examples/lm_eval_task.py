"""lm-evaluation-harness: a small task of one's own, evaluated with the embedded model."""

import json
import tempfile
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

import gpt2_wgpu.integrations.lm_eval  # noqa: F401  (registers the model "gpt2-wgpu")

QUESTIONS = [
    ("Once upon a", [" time", " wolf", " gold"]),
    ("They lived happily ever", [" sons", " after", " red"]),
    ("The king had three", [" said", " and", " daughters"]),
]
TASK = """\
task: tales
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "tales.jsonl")
    rows = [
        {"question": question, "choices": choices, "answer": index}
        for index, (question, choices) in enumerate(QUESTIONS)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    Path(folder, "tales.yaml").write_text(TASK.format(file=file))
    tasks = TaskManager(include_path=folder, include_defaults=False)
    found = lm_eval.simple_evaluate(
        "gpt2-wgpu", model_args="pretrained=fairytales", tasks=["tales"], task_manager=tasks
    )
    print(f"accuracy: {found['results']['tales']['acc,none']:.2f}")
