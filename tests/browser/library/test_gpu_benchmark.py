"""The part of `make gpu` that decodes in a browser, with a tiny plan.

In Firefox, whose software adapter takes half the time of Chromium's.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from bootstrap import NO_FIREFOX, find_firefox

from benchmarks.gpu import browser, parts, plan, report


def test_a_browser_gives_figures(site: Path) -> None:
    path = find_firefox()
    assert path is not None, NO_FIREFOX
    info = SimpleNamespace(is_software=True)
    context = parts.Context(
        plan.tiny(),
        SimpleNamespace(info=info),  # type: ignore[arg-type]
        {"parts": {}},
        browsers=(path,),
        site=site,
    )
    parts.run_part(context, "browser", browser.measure, lambda: None)
    section = context.report["parts"]["browser"]
    found = section[Path(path).stem]
    assert "error" not in found and "cut" not in section
    assert "Firefox" in found["user_agent"]
    assert found["software_adapter"] and found["load_seconds"] > 0
    (row,) = found["rows"]
    assert (row["dtype"], row["batch"], row["checked"]["tokens"]) == ("f16", 1, 6)
    assert row["seconds_per_step"] > 0 < row["bandwidth_utilisation"]
    assert "| f16 | 1 |" in "\n".join(report._browser(section))
