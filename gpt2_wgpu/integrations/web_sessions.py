"""Sessions of a page's worker: texts that are continued, with their keys and values kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.integrations.web_settings import Settings, javascript_names
from gpt2_wgpu.integrations.web_texts import Text
from gpt2_wgpu.integrations.web_tokens import TokenText, without_tokens
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
        tokenizer: tokenizer of the model.
        on_step: called after each step of a text.
    """

    def __init__(
        self,
        session: gw.Session,
        settings_of: Callable[[Mapping[str, Any], Any], Settings],
        tokenizer: GPT2Tokenizer,
        on_step: Callable[[], None],
    ) -> None:
        self._session = session
        self._settings_of = settings_of
        self._tokenizer = tokenizer
        self._on_step = on_step

    def stream(self, given: Mapping[str, Any], rules: Any = None) -> Text:
        """Start the continuation; arguments and errors as in `web_worker.Model.stream`."""
        with javascript_names():
            for key in _OF_PROMPTS:
                if given.get(key) is not None:
                    raise InvalidArgumentError(
                        f"a text of a session has no setting {key}, which is one of lm.session or "
                        "of lm.generate"
                    )
            settings = self._settings_of(without_tokens(given), rules)
            most = settings.arguments["max_new_tokens"]
            if given.get("tokens"):
                self._check_tokens(most)
            stream = self._session.stream(
                most,
                stop_texts=settings.arguments["stop_texts"],
                sampler=settings.sampler,
                time_limit=settings.arguments["time_limit"],
                top_logprobs=settings.top_logprobs,
            )
        if given.get("tokens"):
            return TokenText(given, stream, settings, self._tokenizer, self._on_step)
        return Text(stream, settings, self._tokenizer, self._on_step)

    def _check_tokens(self, most: int | None) -> None:
        """Raise InvalidArgumentError if tokens of a stream may slide out of the context."""
        room, length = self._session.max_length, len(self._session.token_ids) + (most or 0)
        if self._session.context_policy == "slide" and length > room:
            raise InvalidArgumentError(
                f"a stream of tokens needs all {length} tokens within the session's {room}, since "
                "a text that slides has no log-probabilities of one context: omit tokens, or give "
                "fewer maxTokens"
            )

    def append(self, tokens: str | list[int], allowed_special: Any = None) -> None:
        """Append a text or ids."""
        with javascript_names():
            self._session.append(tokens, allowed_special=allowed_special)

    def rewind(self, tokens: int) -> None:
        """Remove the last tokens."""
        self._session.rewind(tokens)

    def edit(self, tokens: str | list[int], allowed_special: Any = None) -> int:
        """Replace the text → number of tokens kept."""
        with javascript_names():
            return self._session.edit(tokens, allowed_special=allowed_special)

    def fork(self) -> Session:
        """Return another session with the same tokens."""
        forked = self._session.fork()
        return Session(forked, self._settings_of, self._tokenizer, self._on_step)

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
