"""lm-eval's command, with this package's model class."""

from lm_eval.__main__ import cli_evaluate

import gpt2_wgpu.integrations.lm_eval  # noqa: F401  (registers it)

cli_evaluate()
