"""``SessionCausalLM``: ``CausalLM`` with sessions."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.models.call_arguments import named
from gpt2_wgpu.models.evaluated_causal_lm import EvaluatedCausalLM
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.models.session import Session
from gpt2_wgpu.models.session_cache import SessionCache
from gpt2_wgpu.models.session_file import read_file, session_of_bytes
from gpt2_wgpu.models.session_text import encoded
from gpt2_wgpu.models.session_tokens import ContextPolicy, SessionTokens, check_policy
from gpt2_wgpu.text.preprocessor import AllowedSpecial
from gpt2_wgpu.webgpu import sync


class SessionCausalLM(EvaluatedCausalLM):
    """``EvaluatedCausalLM`` with ``session`` and ``load_session``."""

    @named("lm.session")
    def session(
        self,
        prompt: str | Sequence[int] = (),
        *,
        max_length: int | None = None,
        context_policy: ContextPolicy = "error",
        add_start_token: bool | None = None,
        allowed_special: AllowedSpecial | None = None,
    ) -> Session:
        """Begin a session: a text that is continued, with its keys and values kept.

        Args:
            prompt: text, or ids, to which no start token is added.
            max_length: most tokens that it has at once; default, and maximum: the context.
            context_policy: what happens to a text that reaches ``max_length``: "error"; or the
                oldest tokens are dropped, with "truncate_left" before a call, with "slide" also
                within one (docs/sessions.md).
            add_start_token: whether a text gets one; default: the preprocessor's.
            allowed_special: special tokens to recognise in a text, or "all"; default: the
                preprocessor's, none.

        Returns:
            A session, to be closed at the end (``with``).

        Raises:
            ContextLengthError: the prompt does not fit, with ``context_policy="error"``.
            InvalidArgumentError: an argument is invalid.
        """
        context = self.backbone.config.n_positions
        most = context if max_length is None else self.total_length(max_length, [])
        tokens = SessionTokens(most, check_policy(context_policy, most))
        ids, has_start = encoded(self, prompt, add_start_token, allowed_special)
        tokens.append(ids, "shorten the prompt")
        tokens.start = int(has_start)
        return Session(self, tokens, SessionCache())

    def load_session(self, source: str | os.PathLike[str] | bytes) -> Session:
        """Load a session that this model has saved; blocks (``load_session_async``).

        Args:
            source: the path of a file of ``Session.save``, or the bytes of ``Session.to_bytes``.

        Returns:
            A session that goes on as the saved one would have.

        Raises:
            SessionError: the file cannot be read, is damaged or no session, or it was saved with
                another configuration, dtype, ``cache_dtype`` or other weights.
        """
        return sync(self.load_session_async(source), "load_session_async(...)")

    async def load_session_async(self, source: str | os.PathLike[str] | bytes) -> Session:
        """Async counterpart of :meth:`load_session`."""
        data, where = read_file(source)
        device = self.backbone.device
        try:
            loaded = await session_of_bytes(self.backbone, data, where)
        except DeviceLostError:
            await recover(self.backbone, device)
            loaded = await session_of_bytes(self.backbone, data, where)
        return Session(self, *loaded)
