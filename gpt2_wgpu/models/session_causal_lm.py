"""``SessionCausalLM``: ``CausalLM`` with sessions."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2_wgpu.models.evaluated_causal_lm import EvaluatedCausalLM
from gpt2_wgpu.models.session import Session
from gpt2_wgpu.models.session_cache import SessionCache
from gpt2_wgpu.models.session_text import encoded
from gpt2_wgpu.models.session_tokens import ContextPolicy, SessionTokens, check_policy
from gpt2_wgpu.text.preprocessor import AllowedSpecial


class SessionCausalLM(EvaluatedCausalLM):
    """``EvaluatedCausalLM`` with ``session``."""

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
        tokens.append(ids)
        tokens.start = int(has_start)
        return Session(self, tokens, SessionCache())
