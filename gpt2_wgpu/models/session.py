"""Session: a text that is continued, changed and forked, with its keys and values kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.models.session_calls import SessionCalls
from gpt2_wgpu.models.session_file import session_bytes, write_file
from gpt2_wgpu.models.session_text import encoded
from gpt2_wgpu.models.session_tokens import ContextPolicy, common_prefix
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.validation import integer
from gpt2_wgpu.webgpu import sync


class Session(SessionCalls):
    """A text whose tokens' keys and values stay on the GPU between calls; made by ``lm.session``.

    What is known is not computed again: a call computes the tokens that were appended since, and
    the new ones. Where only the host is concerned (:meth:`append`, :meth:`rewind`, :meth:`edit`,
    :meth:`fork`) there is no async form, since nothing waits. Serves one call at a time
    (``BusyError``). The memory is freed by :meth:`close`, at the end of a ``with`` block, or with
    the last reference. See docs/sessions.md.
    """

    @property
    def token_ids(self) -> list[int]:
        """The tokens, start token included; while a call runs, those before it."""
        return list(self._tokens.ids)

    @property
    def text(self) -> str:
        """The text of the tokens, without special ones; assigning is :meth:`edit`."""
        text: str = self._preprocessor().tokenizer.decode_shown(self._tokens.ids)
        return text

    @text.setter
    def text(self, text: str) -> None:
        self.edit(text)

    @property
    def max_length(self) -> int:
        """Most tokens that the session has at once."""
        return self._tokens.max_length

    @property
    def context_policy(self) -> ContextPolicy:
        """What happens to a text of ``max_length``; see ``lm.session``."""
        return self._tokens.policy

    @property
    def dropped_tokens(self) -> int:
        """Number of tokens that ``context_policy`` has dropped so far."""
        return self._tokens.dropped

    @property
    def cached_tokens(self) -> int:
        """Number of tokens whose keys and values are on the GPU."""
        return self._cache.stored

    def __len__(self) -> int:
        return len(self._tokens.ids)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"Session of {len(self)} tokens, {self.cached_tokens} cached{state}"

    def append(
        self, tokens: str | Sequence[int], *, allowed_special: AllowedSpecial | None = None
    ) -> None:
        """Append a text, or ids; they are computed by the next call.

        Args:
            tokens: text, to which no start token is added, or ids.
            allowed_special: special tokens to recognise in a text, or "all"; default: the
                preprocessor's, none.

        Raises:
            ContextLengthError: they do not fit, with ``context_policy="error"``.
            InvalidArgumentError: ids or text are invalid.
        """
        ids = self._encoded(tokens, False, allowed_special)
        with self._idle():
            self._tokens.append(ids)

    def rewind(self, tokens: int) -> None:
        """Remove the last ``tokens`` tokens. InvalidArgumentError if there are fewer."""
        with self._idle():
            count = integer("tokens", tokens, 0, len(self))
            self._truncate(len(self) - count)

    def edit(
        self, tokens: str | Sequence[int], *, allowed_special: AllowedSpecial | None = None
    ) -> int:
        """Replace the whole text; keys and values of the longest common prefix are kept.

        Args:
            tokens: text, with a start token if the session has one, or ids.
            allowed_special: as in :meth:`append`.

        Returns:
            The number of tokens that were kept.

        Raises:
            ContextLengthError, InvalidArgumentError: as in :meth:`append`; nothing has changed.
        """
        ids = self._encoded(tokens, self._tokens.start > 0, allowed_special)
        with self._idle():
            common = common_prefix(self._tokens.ids, ids)
            changed = self._tokens.copied()
            changed.truncate(common)
            changed.append(ids[common:], "shorten the text")
            changed.start = min(self._tokens.start, common)
            self._tokens = changed
            self._cache.truncate(min(common, max(0, len(ids) - 1)))
        return common

    def to_bytes(self) -> bytes:
        """Return the session as bytes, keys and values included; blocks (``to_bytes_async``)."""
        return sync(self.to_bytes_async(), "to_bytes_async()")

    async def to_bytes_async(self) -> bytes:
        """Async counterpart of :meth:`to_bytes`."""
        with self._idle():
            self._busy = True
        backbone = self.model.backbone
        device = backbone.device
        try:
            return await session_bytes(backbone, self._tokens, self._cache)
        except DeviceLostError:
            await recover(backbone, device)
            return await session_bytes(backbone, self._tokens, self._cache)
        finally:
            self._release()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the session to a file, for ``lm.load_session``; blocks (``save_async``).

        SessionError if the file cannot be written; one that exists is replaced at the end.
        """
        sync(self.save_async(path), "save_async(...)")

    async def save_async(self, path: str | os.PathLike[str]) -> None:
        """Async counterpart of :meth:`save`."""
        write_file(path, await self.to_bytes_async())

    def fork(self) -> Session:
        """Return another session with the same tokens.

        Both share the keys and values so far, and write new ones to memory of their own.
        """
        with self._idle():
            return Session(self.model, self._tokens.copied(), self._cache.fork())

    def _truncate(self, length: int) -> None:
        self._tokens.truncate(length)
        self._cache.truncate(max(0, length - 1))

    def close(self) -> None:
        """End a call that runs, or waits for its turn, and free the memory. Idempotent.

        From any thread or task. Where another one is computing, the memory is freed as soon as that
        has ended.
        """
        with self._lock:
            self._closed = True
            if not self._busy:
                self._cache.close()
            self._control.cancel()
            source = None if self._source is None else self._source()
        if source is not None:
            source.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The garbage collector may run at any time: free at the next safe point.
        cache = getattr(self, "_cache", None)
        if cache is not None and not self._closed and not sys.is_finalizing():
            self.model.device.memory.defer(cache.close)

    def _encoded(
        self, tokens: str | Sequence[int], start: bool, allowed_special: AllowedSpecial | None
    ) -> list[int]:
        return encoded(self.model, tokens, start, allowed_special)[0]
