"""Sessions of a page's worker: texts that are continued, with their keys and values kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError, SessionError
from gpt2_wgpu.integrations.web_settings import Settings, javascript_names
from gpt2_wgpu.integrations.web_texts import Text
from gpt2_wgpu.integrations.web_tokens import TokenText, without_tokens
from gpt2_wgpu.models.session_tokens import common_prefix
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2Tokenizer

# Options of JavaScript's `lm.session`, and the arguments in Python.
OPTIONS = {
    "maxLength": "max_length",
    "contextPolicy": "context_policy",
    "addStartToken": "add_start_token",
    "allowedSpecial": "allowed_special",
}
_OF_PROMPTS = ("addStartToken", "allowedSpecial", "numReturnSequences", "returnAllBeams")


def session_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``lm.session``; InvalidArgumentError for an unknown option."""
    if unknown := sorted(given.keys() - OPTIONS.keys()):
        raise InvalidArgumentError(
            f"no option {shown(unknown[0])} of a session; there are {', '.join(OPTIONS)}"
        )
    return {OPTIONS[key]: value for key, value in given.items() if value is not None}


class Session:
    """A session, as used by the worker.

    Args:
        session: the session.
        settings_of: returns the settings of a call, given those of JavaScript and rules.
        late: `web_worker.Model.stream`, for a call whose time is up before it begins.
        tokenizer: tokenizer of the model.
        on_step: called after each step of a text.
        name: hub id, address or name that the model was loaded by.
    """

    def __init__(
        self,
        session: gw.Session,
        settings_of: Callable[[Mapping[str, Any], Any], Settings],
        late: Callable[[list[int], Mapping[str, Any], Any, bool], Text],
        tokenizer: GPT2Tokenizer,
        on_step: Callable[[], None],
        name: str,
    ) -> None:
        self._name = name
        # For a saved run: each part that was generated, with the tokens up to its end.
        self._generated: list[tuple[list[int], gw.RunPart]] = []
        self._open: tuple[int, dict[str, Any]] | None = None  # start and sampler of the last text
        self._session = session
        self._settings_of = settings_of
        self._late = late
        self._tokenizer = tokenizer
        self._on_step = on_step

    def stream(self, given: Mapping[str, Any], rules: Any = None, ended: bool = False) -> Text:
        """Start the continuation; arguments and errors as in `web_worker.Model.stream`."""
        with javascript_names():
            for key in _OF_PROMPTS:
                if given.get(key) is not None:
                    raise InvalidArgumentError(
                        f"a text of a session has no setting {key}, which is one of lm.session or "
                        "of lm.generate"
                    )
            if ended:  # the session may be generating: its call says how it ends
                return self._late(self._session.token_ids, given, rules, True)
            settings = self._settings_of(without_tokens(given), rules)
            ids, sampler = self._session.token_ids, gw.samplers.serialize(settings.sampler)
            stream = self._session.stream(
                settings.arguments["max_new_tokens"],
                stop_texts=settings.arguments["stop_texts"],
                sampler=settings.sampler,
                time_limit=settings.arguments["time_limit"],
                top_logprobs=settings.top_logprobs,
            )
        self._note(ids)
        if rules is None and not self._session.model.logits_processors:
            self._open = len(ids), sampler
        if given.get("tokens"):
            return TokenText(given, stream, settings, self._tokenizer, self._on_step)
        return Text(stream, settings, self._tokenizer, self._on_step)

    def _note(self, ids: list[int]) -> None:
        """Note that the last text ended with these tokens."""
        if self._open is not None and len(ids) > self._open[0]:
            part = gw.RunPart(self._open[0], len(ids), self._open[1])
            self._generated.append((ids, part))
        self._open = None

    def _parts(self, ids: list[int]) -> list[gw.RunPart]:
        """Return the parts of a text that were generated, also if it was another meanwhile."""
        longest: dict[int, gw.RunPart] = {}
        for row, part in self._generated:
            end = min(part.end, common_prefix(row, ids))
            if end > max(part.start, longest[part.start].end if part.start in longest else 0):
                longest[part.start] = replace(part, end=end)
        found = [longest[start] for start in sorted(longest)]
        starts = [*(part.start for part in found[1:]), len(ids)]
        return [replace(part, end=min(part.end, n)) for part, n in zip(found, starts, strict=False)]

    async def saved_run(self) -> dict[str, Any]:
        """Return `gw.SavedRun` as of JSON.

        Raises:
            SessionError: nothing of the text was generated here, or tokens were dropped.
        """
        ids = self._session.token_ids
        self._note(ids)
        if self._session.dropped_tokens:
            raise SessionError("this text has lost its beginning, so that it cannot be replayed")
        parts = self._parts(ids)
        if not parts:
            raise SessionError("no part of this text was generated by its session alone")
        run = await gw.SavedRun.of_async(self._session.model, self._name, ids, parts)
        found: dict[str, Any] = json.loads(run.to_json())
        return found

    def append(self, tokens: str | list[int], allowed_special: Any = None) -> None:
        """Append a text or ids."""
        ids = self._session.token_ids
        with javascript_names():
            self._session.append(tokens, allowed_special=allowed_special)
        self._note(ids)

    def rewind(self, tokens: int) -> None:
        """Remove the last tokens."""
        ids = self._session.token_ids
        self._session.rewind(tokens)
        self._note(ids)

    def edit(self, tokens: str | list[int], allowed_special: Any = None) -> int:
        """Replace the text → number of tokens kept."""
        ids = self._session.token_ids
        with javascript_names():
            kept = self._session.edit(tokens, allowed_special=allowed_special)
        self._note(ids)
        return kept

    def fork(self) -> Session:
        """Return another session with the same tokens."""
        ids = self._session.token_ids
        others = self._settings_of, self._late, self._tokenizer, self._on_step, self._name
        forked = Session(self._session.fork(), *others)
        self._note(ids)
        forked._generated = list(self._generated)
        return forked

    def tokens(self) -> list[int]:
        """Return the ids, start token included."""
        return self._session.token_ids

    def text(self) -> str:
        """Return the text."""
        return self._session.text

    async def to_bytes(self) -> bytes:
        """Return the session as bytes, for `web_worker.Model.load_session`."""
        return await self._session.to_bytes_async()

    def close(self) -> None:
        """Free the memory. Idempotent."""
        self._session.close()
