"""Compile report: up to date with the kernels, no spills, and 16-byte loads. Runs no compiler."""

from __future__ import annotations

import copy

import pytest

from benchmarks.compile_report import compilers, report
from benchmarks.compile_report.variants import Variant, variants

pytestmark = pytest.mark.native("the benchmarks")


@pytest.fixture(scope="module")
def committed():
    return report.load()


@pytest.fixture(scope="module")
def found():
    return variants()


def test_the_report_has_the_kernels_that_text_generation_takes(committed, found):
    missing, unused = report.outdated(committed, found)
    changed = [one.label for one in missing] + unused
    assert not changed, (
        f"kernels have changed since the compile report: {changed[:3]} ({len(changed)} in all). "
        f"Run `{report.COMMAND}` and commit its result (benchmarks/README.md)"
    )


def test_no_variant_spills_or_loses_its_loads(committed):
    assert committed["rows"]
    assert not report.defects(committed)
    assert all(list(row["families"]) == list(compilers.FAMILIES) for row in committed["rows"])


def test_the_table_shows_the_same_figures(committed):
    assert report.MARKDOWN.read_text() == report.as_markdown(committed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spilled_vgprs": 3}, "on navi21: spilled_vgprs 3"),
        ({"scratch_bytes": 64}, "on navi21: scratch_bytes 64"),
        ({"loads": {"4": 9}}, "on navi21: no load of 16 bytes, but {'4': 9}"),
    ],
)
def test_what_is_a_defect(committed, change, said):
    row = next(row for row in committed["rows"] if row["wide_bindings"])
    spoilt = copy.deepcopy(row)
    spoilt["families"]["navi21"] |= change
    (defect,) = report.defects({"rows": [row, spoilt]})
    assert defect == f"{row['kernel']} {said}"


def test_only_code_and_constants_make_a_hash(found):
    one = next(one for one in found if one.name == "linear_gemv")
    other = Variant(one.name, one.variant, {**one.constants, "LANES": 2}, one.signature)
    assert other.hash != one.hash
    missing, unused = report.outdated({"rows": []}, [one])
    assert (missing, unused) == ([one], [])


def test_figures_of_a_compiler_that_prints_machine_code():
    text = "\n".join(
        (
            "disasm:",
            "	buffer_load_dwordx4 v[4:7], v3, s[8:11], 0 offen",
            "	buffer_load_b128 v[4:7], v3, s[8:11], 0 offen",
            "	global_load_dword v1, v2",
            "	s_buffer_load_dwordx4 s[0:3], s[4:7], 0x0",
            *(f"{name}: 7" for name in compilers._STATS.values()),
        )
    )
    figures = compilers.figures_of(text)
    assert figures["loads"] == {"16": 2, "4": 1}
    assert figures["vgprs"] == figures["waves"] == 7
    with pytest.raises(compilers.CompilerError, match="printed no 'VGPRs'"):
        compilers.figures_of("")
