"""Sessions as bytes: they go on where they were, and what is not theirs is rejected."""

from __future__ import annotations

import json

import pytest

import gpt2_wgpu as gw
from gpt2_wgpu import samplers
from gpt2_wgpu.errors import OutOfGPUMemoryError, SessionError
from gpt2_wgpu.models import session_file
from gpt2_wgpu.weight_formats import WEIGHT_FORMATS
from tests.models.session_models import PROMPT, model_of

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture(scope="module")
def lm(device):
    with model_of() as lm:
        yield lm


def a_session(lm, **options):
    """A session with all kinds of segments, on two pages."""
    session = lm.session(PROMPT, **options)
    go_on(session, 9)
    session.append([5, 6, 7])
    go_on(session, 40)
    session.rewind(3)
    return session


def go_on(session, count, seed=4):
    return session.generate(count, stop_token_ids=None, sampler=samplers.Random(seed=seed))


@pytest.fixture(scope="module")
def saved(lm):
    with a_session(lm) as session:
        return session.to_bytes()


@pytest.mark.parametrize("dtype", WEIGHT_FORMATS)
@pytest.mark.chromium_cases("dtype")
def test_a_loaded_session_goes_on(device, dtype, monkeypatch):
    with model_of(dtype, "float16" if dtype == "q8" else "float32") as lm, a_session(lm) as session:
        data = session.to_bytes()
        ids, cached = session.token_ids, session.cached_tokens
        expected = go_on(session, 20)

        def no_memory(*_args, **_options):
            raise OutOfGPUMemoryError("none left")

        with lm.load_session(data) as loaded:
            assert (loaded.token_ids, loaded.cached_tokens) == (ids, cached)
            assert loaded.to_bytes() == data
            assert go_on(loaded, 20) == expected
        with monkeypatch.context() as patch:
            patch.setattr(session_file, "empty", no_memory)
            loaded = lm.load_session(data)
        with loaded:
            assert loaded.cached_tokens == 0
            assert go_on(loaded, 20) == expected


@pytest.mark.parametrize("cache_dtype", ["float32", "float16"])
def test_what_was_removed_is_not_in_the_bytes(device, cache_dtype):
    with model_of("float32", cache_dtype) as lm, a_session(lm) as session:
        before = session.to_bytes()
        go_on(session, 20)
        session.rewind(20)
        assert session.to_bytes() == before
        with lm.load_session(before) as loaded:
            assert go_on(loaded, 20) == go_on(session, 20)


def test_the_policy_is_kept(lm):
    with a_session(lm, max_length=100, context_policy="slide") as session:
        go_on(session, 60)
        with lm.load_session(session.to_bytes()) as loaded:
            assert loaded.dropped_tokens == session.dropped_tokens > 0
            assert go_on(loaded, 60) == go_on(session, 60)
            assert loaded.token_ids == session.token_ids


def test_sessions_of_text_without_tokens(tales):
    with tales.session("", add_start_token=False) as session:
        data = session.to_bytes()
    with tales.load_session(data) as loaded:
        loaded.append("The king")
        assert loaded.text == "The king"
        assert tales.load_session(loaded.to_bytes()).cached_tokens == 0
    with tales.session("The king") as session, tales.load_session(session.to_bytes()) as loaded:
        loaded.edit("The queen")
        start = tales.preprocessor.tokenizer.start_token_id
        assert loaded.token_ids[0] == start


@pytest.mark.native("files")
def test_files(lm, saved, tmp_path):
    path = tmp_path / "a.session"
    with a_session(lm) as session:
        session.save(path)
    assert path.read_bytes() == saved
    assert [each.name for each in tmp_path.iterdir()] == ["a.session"]
    with lm.load_session(str(path)) as loaded:
        assert len(loaded) == 30 + 9 + 3 + 40 - 3
        with pytest.raises(SessionError, match=r"^(?!.*cannot.*cannot).*a\.session: cannot be"):
            loaded.save(tmp_path / "missing" / "a.session")
    for wrong in (tmp_path / "missing", tmp_path, "a\0b"):
        with pytest.raises(SessionError, match=r"cannot be read: [^\[]*$"):
            lm.load_session(wrong)
    for wrong in (None, 3, ""):
        with pytest.raises(SessionError, match="must be a path or its bytes, not"):
            lm.load_session(wrong)


OTHERS = {
    "another dtype: 'float32', here 'q8'": {"dtype": "q8"},
    "another cache_dtype": {"cache_dtype": "float16"},
    "another config": {"layers": 1},
    "other weights": {"seed": 1},
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_model(saved, message):
    with model_of(**OTHERS[message]) as other, pytest.raises(SessionError, match=message):
        other.load_session(saved)


def test_a_model_that_differs_in_a_part_of_one_weight(saved):
    """As one that was trained with the others frozen; the digest is of the current weights."""
    with model_of() as other:
        with gw.tidy():
            weights = [weight.tolist() for weight in other.backbone.get_weights()]
        other.load_session(saved).close()
        for index in (0, 1, -6, -2):  # tokens, positions, and of the last block
            weight = weights[index]
            half = len(weight) // 2
            new = [*weights]
            new[index] = [*weight[:half], *more(weight[half:])]
            other.backbone.set_weights(new)
            with pytest.raises(SessionError, match="other weights"):
                other.load_session(saved)
        other.backbone.set_weights(weights)
        other.load_session(saved).close()


def more(values):
    """Nested lists with other numbers."""
    return [more(each) if isinstance(each, list) else each + 0.1 for each in values]


def changed(saved, key, change):
    """The session with a change of its JSON, and a right checksum."""
    length = int.from_bytes(saved[:8], "little")
    header = json.loads(saved[8 : 8 + length])
    values = json.loads(header["__metadata__"][key])
    change(values)
    header["__metadata__"][key] = json.dumps(values)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + saved[8 + length :]


DAMAGES = {
    "empty": lambda s: b"",
    "text": lambda s: b"<html>" * 100,
    "cut": lambda s: s[:-4],
    "longer": lambda s: s + b"    ",
    "a flipped bit": lambda s: s[:-5] + bytes([s[-5] ^ 1]) + s[-4:],
    "another version": lambda s: s.replace(b'"version":"2"', b'"version":"3"'),
    "another format": lambda s: s.replace(b"gpt2_wgpu session", b"gpt2_wgpu weights"),
    "stored": lambda s: changed(s, "session", lambda v: v.update(stored=5)),
    "a list": lambda s: changed(s, "session", lambda v: v.update(segments=5)),
    "segments": lambda s: changed(s, "session", lambda v: v["segments"].pop(0)),
    "a chunk": lambda s: changed(s, "session", lambda v: v["segments"][0].__setitem__(2, 500)),
    "given": lambda s: changed(s, "session", lambda v: v.update(given=[[0, 900]])),
    "length": lambda s: changed(s, "session", lambda v: v.update(max_length=20)),
    "negative": lambda s: changed(s, "session", lambda v: v.update(dropped=-1)),
    "policy": lambda s: changed(s, "session", lambda v: v.update(policy=["error"])),
    "more": lambda s: changed(s, "session", lambda v: v.update(other=1)),
    "less": lambda s: changed(s, "session", lambda v: v.pop("start")),
    "model": lambda s: changed(s, "model", lambda v: v.pop("dtype")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_sessions(lm, saved, damage):
    with pytest.raises(SessionError, match=r"^the session (is|has) "):
        lm.load_session(DAMAGES[damage](saved))


def test_a_session_of_the_first_version(lm, saved):
    """Its fingerprint was another one: the weights may be the same."""
    with pytest.raises(SessionError, match=r"has version '1' of .*, this library reads 2: save it"):
        lm.load_session(saved.replace(b'"version":"2"', b'"version":"1"'))
