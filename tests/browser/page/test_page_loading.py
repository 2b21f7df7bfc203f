"""Page: from the first paint to a loaded model, and unloading."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.page.visit import Visit

MODEL = Path(__file__).parents[3] / "models" / "fairytales"
Begin = Callable[..., Visit]


def whole(pattern: str) -> re.Pattern[str]:
    return re.compile(f"^{pattern}$")


def test_one_click_loads_the_embedded_model(visit: Begin) -> None:
    me = visit()
    expect(me("load")).to_have_text("Load · 15.1 MB")
    expect(me("candidate-size")).to_have_text("15,090,800 bytes in 4 files")
    assert me.calls("load") == []  # nothing is loaded by itself
    expect(me("generate")).to_be_disabled()
    me.load()
    assert me.calls("load") == [["load", "fairytales", None]]
    expect(me("load")).to_have_text("Unload")
    expect(me("candidate-note")).to_have_text("7.5 million parameters, context 512, float16")
    expect(me("adapter")).to_have_text("Fake GPU · float16")
    expect(me("offline")).to_have_text("This page and the model work offline.")


def test_every_stage_tells_bytes_and_seconds(visit: Begin) -> None:
    me = visit()
    me.load()
    stages = me.page.locator("#stages li")
    expect(stages).to_have_count(5)
    for stage, detail in {
        "python": r"4\.0 MB · [\d.]+ s",
        "package": r"4\.0 MB · [\d.]+ s",
        "adapter": r"[\d.]+ s",
        "weights": r"15\.1 MB · [\d.]+ s",
        "shaders": r"4\.0 MB · [\d.]+ s",
    }.items():
        item = me.page.locator(f'#stages [data-stage="{stage}"][data-state="done"]')
        expect(item.locator("span")).to_have_text(whole(detail))
        assert item.locator("progress").evaluate("bar => bar.value") == 1


def test_progress_tells_megabytes_and_speed(visit: Begin) -> None:
    me = visit({"step": 150})
    expect(me("load")).to_be_enabled()
    me("load").click()
    weights = me.page.locator('#stages [data-stage="weights"] span')
    expect(weights).to_have_text(whole(r"[\d.]+ of 15\.1 MB · [\d.]+ MB/s"), timeout=10_000)


def test_a_cancelled_download_is_resumed(visit: Begin) -> None:
    me = visit({"holding": True})
    expect(me("load")).to_be_enabled()
    me("load").click()
    me.until(lambda: me.evaluate("() => (fake.uploaded ?? 0) > 8e6"), "half of the weights")
    expect(me("load")).to_have_text("Cancel")
    me("load").click()
    me.evaluate("() => (fake.holding = false)")
    expect(me("load")).to_have_text("Resume · 7.5 of 15.1 MB")
    expect(me("model-message")).to_have_text("Cancelled. The part that was downloaded is kept.")
    expect(me("memory-live")).to_have_text("0 MB")
    expect(me("generate")).to_be_disabled()
    expect(me.page.locator('#stages [data-state="stopped"]')).to_have_count(1)
    me("load").click()
    expect(me("generate")).to_be_enabled(timeout=20_000)
    assert len(me.calls("load")) == 2
    expect(me.page.locator('#stages [data-state="done"]')).to_have_count(5)


def test_warnings_of_a_loaded_model_are_shown(visit: Begin) -> None:
    me = visit({"warnings": ['runs on the CPU; pass dtype="float16" to override', "it is slow"]})
    me.load()
    expect(me("model-message")).to_have_text(
        "Runs on the CPU; unload the model to choose another weight format. It is slow."
    )


def test_a_model_that_is_not_kept_is_not_promised_offline(visit: Begin) -> None:
    me = visit({"storing": False})
    me.load()
    expect(me("offline")).to_have_text("This page works offline. The model is not stored.")


def test_a_download_that_an_earlier_visit_began_is_offered_to_go_on(visit: Begin) -> None:
    row = {"id": "fairytales", "name": "fairytales", "bytes": 5_000_000}
    row |= {"total": 15_090_800, "complete": False}
    me = visit({"stored": [row]})
    expect(me("load")).to_have_text("Resume · 5.0 of 15.1 MB")


@pytest.mark.parametrize(
    ("stage", "name", "message"),
    [
        ("weights", "WeightsError", "model.safetensors: wrong hash: 12ab… instead of 34cd…"),
        ("weights", "WeightsError", "model.safetensors is a web page, not weights"),
        ("package", "NetworkError", "wheels/gpt2_wgpu.whl could not be fetched"),
        ("adapter", "NoAdapterError", "No adapter"),
    ],
)
def test_what_fails_is_told_and_can_be_tried_again(
    visit: Begin, stage: str, name: str, message: str
) -> None:
    me = visit({"failAt": {"stage": stage, "name": name, "message": message}})
    expect(me("load")).to_be_enabled()
    me("load").click()
    expect(me("model-message")).to_contain_text(message)
    expect(me("model-message")).to_have_class("message bad")
    expect(me.page.locator(f'#stages [data-stage="{stage}"]')).to_have_attribute(
        "data-state", "stopped"
    )
    expect(me("generate")).to_be_disabled()
    me.evaluate("() => { fake.failAt = null; }")
    me.load()
    expect(me("model-message")).to_have_text("")
    expect(me("model-message")).to_have_class("message")


def test_a_hub_model_shows_its_size_and_waits(visit: Begin) -> None:
    me = visit()
    expect(me("load")).to_be_enabled()
    me.page.locator("#others summary").click()
    me("remote-source").fill("  ")
    me.page.get_by_role("button", name="Check size").click()
    missing = me("remote-missing")
    expect(missing).to_be_visible()
    expect(me("remote-source")).to_be_focused()
    assert len(me.calls("size")) == 1  # of the embedded model
    me("remote-source").fill("openai-community/gpt2")
    expect(missing).to_be_hidden()
    me("remote-source").press("Enter")
    expect(me("candidate-name")).to_have_text("openai-community/gpt2")
    expect(me("load")).to_have_text("Load · 15.1 MB")
    assert me.calls("size")[-1] == ["size", "openai-community/gpt2"]
    assert me.calls("load") == []
    me("dtype").select_option("float32")
    me.load()
    assert me.calls("load") == [["load", "openai-community/gpt2", "float32"]]


def test_an_unknown_model_is_said_to_be_one(visit: Begin) -> None:
    me = visit()
    me.page.locator("#others summary").click()
    me("remote-source").fill("no/such")
    me.page.get_by_role("button", name="Check size").click()
    expect(me("model-message")).to_have_text("no/such is not on the Hub: 404.")
    expect(me("load")).to_be_disabled()


def test_a_failed_look_up_leaves_the_loaded_model_in_the_panel(visit: Begin) -> None:
    me = visit()
    me.load()
    me.page.locator("#others summary").click()
    me("remote-source").fill("no/such")
    me("remote-source").press("Enter")
    expect(me("model-message")).to_have_text("no/such is not on the Hub: 404.")
    expect(me("candidate-name")).to_have_text("fairytales")
    expect(me("candidate-note")).to_have_text("7.5 million parameters, context 512, float16")
    expect(me("candidate-size")).to_contain_text("15,090,800 bytes")
    expect(me("load")).to_have_text("Unload")
    expect(me("model-message")).to_have_text("no/such is not on the Hub: 404.")
    me("load").click()
    expect(me("load")).to_have_text("Load · 15.1 MB, stored")


def test_a_picked_folder_is_a_model(visit: Begin) -> None:
    me = visit()
    expect(me("load")).to_be_enabled()
    me("folder").set_input_files(MODEL)
    expect(me("candidate-name")).to_have_text("fairytales")
    expect(me("candidate-note")).to_contain_text("Read directly from your disk")
    me.load()
    (load,) = me.calls("load")
    assert load[1] == len([path for path in MODEL.iterdir() if path.is_file()])


def test_a_dropped_folder_is_a_model(visit: Begin) -> None:
    me = visit()
    expect(me("load")).to_be_enabled()
    me.drop(MODEL)
    expect(me("candidate-note")).to_contain_text("Read directly from your disk")
    expect(me("dropzone")).to_be_hidden()
    assert sorted(me.calls("size")[-1][1]) == sorted(path.name for path in MODEL.iterdir())
    me.load()


def test_a_folder_that_is_no_model_is_refused(visit: Begin, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"...")
    me = visit()
    expect(me("load")).to_be_enabled()
    me.drop(tmp_path)
    expect(me("model-message")).to_have_text("The folder has no config.json: it is no model.")
    expect(me("load")).to_be_disabled()


_SIZE = """async (names) => {
  const { size } = await import(new URL("web/models.js", document.baseURI).href);
  try {
    return await size(names.map((name) => new File(["{}"], name)), {});
  } catch (error) {
    return error.message;
  }
}"""


def test_a_folder_is_judged_as_any_other_place_of_a_model(visit: Begin) -> None:
    """By the library itself: an invalid model is rejected before Load, and nothing is "stored"."""
    me = visit()
    tokenizer = ["vocab.json", "merges.txt"]
    found = me.page.evaluate(_SIZE, ["config.json", "model.safetensors", *tokenizer, "README.md"])
    assert (found["bytes"], len(found["files"]), found["cached"]) == (8, 4, False)
    rejected = me.page.evaluate(_SIZE, ["config.json", *tokenizer])
    assert "has no model.safetensors" in rejected
    assert "has no tokenizer" in me.page.evaluate(_SIZE, ["config.json", "model.safetensors"])


def test_stored_models_are_listed_used_and_deleted(visit: Begin) -> None:
    rows = [
        {"id": "a/one", "name": "a/one", "bytes": 548_100_000, "complete": True},
        {
            "id": "b/two",
            "name": "b/two",
            "bytes": 212_000_000,
            "total": 300_000_000,
            "complete": False,
        },
    ]
    me = visit({"stored": rows})
    me.page.locator("#others summary").click()
    expect(me("stored-count")).to_have_text("2 models, 760.1 MB")
    expect(me.page.locator("#stored-list li")).to_have_text(
        ["a/one548.1 MBUseDelete", "b/two212.0 of 300.0 MBResumeDelete"]
    )
    me.page.get_by_role("button", name="Use a/one").click()
    expect(me("load")).to_have_text("Load · 15.1 MB, stored")
    me.page.get_by_role("button", name="Delete a/one from this device").click()
    expect(me.page.locator("#stored-list li")).to_have_count(1)
    expect(me.page.get_by_role("button", name="Resume b/two")).to_be_focused()
    expect(me("load")).to_have_text("Load · 15.1 MB")
    me.page.get_by_role("button", name="Delete b/two from this device").click()
    expect(me("stored-count")).to_have_text("none")


def test_a_double_click_loads_once(visit: Begin) -> None:
    me = visit({"step": 30})
    expect(me("load")).to_be_enabled()
    me("load").dblclick()
    expect(me("generate")).to_be_enabled(timeout=20_000)
    assert len(me.calls("load")) == 1


def test_unloading_gives_the_memory_back(visit: Begin) -> None:
    me = visit()
    me.load()
    expect(me("memory-live")).to_have_text("15.1 MB")
    me("load").click()
    expect(me("load")).to_have_text("Load · 15.1 MB, stored")
    expect(me("memory-live")).to_have_text("0 MB")
    expect(me("generate")).to_be_disabled()


def test_another_model_takes_the_place_of_the_first(visit: Begin) -> None:
    me = visit({"step": 10})
    me.load()
    me.page.locator("#others summary").click()
    me("remote-source").fill("a/b")
    me("remote-source").press("Enter")
    expect(me("load")).to_have_text("Load · 15.1 MB")
    expect(me("generate")).to_be_enabled()  # the first one still writes
    me("load").click()
    expect(me("generate")).to_be_disabled()
    me("remote-source").fill("c/d")
    me("remote-source").press("Enter")
    expect(me("model-message")).to_have_text("A model is loading. Cancel it first.")
    expect(me("load")).to_have_text("Unload")
    me.generate()
    expect(me("story-label")).to_contain_text("a/b, seed")
    assert [call[1] for call in me.calls("load")] == ["fairytales", "a/b"]


def test_without_a_service_worker_nothing_is_promised(visit: Begin) -> None:
    me = visit({"offline": False})
    me.load()
    expect(me("offline")).not_to_contain_text("offline")


COLUMNS = ".stored-name, .others > *, #candidate > div, .figures > *, .stages > *, .counts > *"


def test_what_is_said_of_a_model_ends_with_it(visit: Begin) -> None:
    rows = [{"id": "a/one", "name": "a/" + "one" * 20, "bytes": 548_100_000, "complete": True}]
    me = visit({"warnings": ["it is slow"], "stored": rows})
    me.load()
    assert "Python, done" in me("stages").aria_snapshot()
    me.page.locator("#others summary").click()
    for width in (320, 860, 1280):  # a column of one letter is not one
        me.page.set_viewport_size({"width": width, "height": 900})
        for column in me.page.locator(COLUMNS).all():
            box = column.bounding_box()
            assert not box or box["width"] > 60, (width, column.text_content())
    me("load").click()
    expect(me("load")).to_contain_text("Load")
    for name, words in {
        "adapter": "Fake GPU",
        "candidate-note": "7 million parameters, trained on fairy tales",
        "model-message": "",
    }.items():
        expect(me(name)).to_have_text(words)
    expect(me.page.locator("#stages [data-state]")).to_have_count(0)
    assert me.evaluate("() => 'lm' in globalThis") is False
    me.load()
    expect(me("candidate-note")).to_have_text("7.5 million parameters, context 512, float16")
    me.page.get_by_role("button", name="Use a/one").click()
    expect(me("candidate-note")).to_have_text("Stored on this device")
    expect(me.page.locator("#stages [data-state]")).to_have_count(0)
    expect(me("adapter")).to_have_text("Fake GPU · float16")  # which still writes
