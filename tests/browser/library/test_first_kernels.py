"""A visit's kernels are compiled before Python asks for them: all of them, and no others."""

from __future__ import annotations

from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

from tests.browser.library.browsing import Browser, Tab
from tests.browser.library.host import PREFIX, Host, Hosted, hosting

VISIT = """async (options) => {
  const lm = await GPT2.load("fairytales", options);
  for await (const _ of lm.stream("Once upon a time", { maxTokens: 1 })) break;
  const { result } = await lm.python(`
import js
early = await js.gpt2WgpuEarly
kernels = {key[0] for key in lm.device.pipelines.keys}
[list(early.missing), early.left, len(lm.device.pipelines.keys), "exclude_tokens" in kernels]
`);
  await lm.dispose();
  return { dtype: lm.info.dtype, result };
}"""


def visit(tab: Tab, **options: str) -> tuple[str, list[str], int, int, bool]:
    """Load the embedded model and begin a text → its format; kernels that were not compiled early;
    the number of those that were and not taken, and of all taken; whether the self-test ran."""
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    found: dict[str, Any] = tab.evaluate(VISIT, options)
    missing, left, taken, tested = literal_eval(found["result"])
    return found["dtype"], missing, left, taken, tested


@pytest.mark.parametrize("dtype", ["", "float16"])
def test_all_kernels_of_a_visit_are_compiled_early(
    browser: Browser, site: Path, dtype: str
) -> None:
    """By default after a measurement of the formats, which q8 wins on SwiftShader."""
    options = {"dtype": dtype} if dtype else {}
    with hosting(site) as host:
        for _ in range(3):  # other programs may spoil the measurement
            tab = browser.open(f"{host.page}tests/library.html", self_tested=False)
            taken, missing, left, first, tested = visit(tab, **options)
            if taken == (dtype or "q8"):
                break
            tab.close()
        assert (missing, left, tested) == ([], 0, True)
        assert first > 30
        tab.reload()  # measurement and test are remembered
        _, missing, left, second, tested = visit(tab, **options)
        assert (missing, left, tested) == ([], 0, False)
        assert 10 < second < first
        other = "float32" if dtype else "float16"  # of whose test nothing is remembered
        tab.reload()
        _, missing, left, _, tested = visit(tab, dtype=other)
        assert (missing, left, tested) == ([], 0, True)
        tab.close()
    assert not tab.complaints


@pytest.mark.parametrize("answer", [Hosted(b"", status=404), Hosted(b"damaged")])
def test_without_a_list_python_asks_for_all(browser: Browser, host: Host, answer: Hosted) -> None:
    host.files[f"{PREFIX}web/first-kernels.bin"] = answer
    tab = browser.open(f"{host.page}tests/library.html", snapshot=host.page)
    tab.wait_for("() => Boolean(globalThis.GPT2)")
    found = tab.evaluate("""async () => {
      const lm = await GPT2.load("fairytales", { dtype: "float16" });
      const { result } = await lm.python("import js; hasattr(await js.gpt2WgpuEarly, 'missing')");
      const text = await lm.generate("Once upon a time", { maxTokens: 4 });
      await lm.dispose();
      return [result, text.length > 0];
    }""")
    tab.close()
    assert not tab.complaints
    assert found == ["False", True]
