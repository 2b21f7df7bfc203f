"""A text that a user and a model write in turns: what `gpt2-wgpu run` keeps, rewinds and saves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_wgpu import strict_json
from gpt2_wgpu.errors import InvalidArgumentError

if TYPE_CHECKING:
    import gpt2_wgpu as gw

_FORMAT = "gpt2-wgpu text"
_VERSION = 1


@dataclass
class Turn:
    """What the user wrote, what the model wrote after it, and the number of ids before both."""

    prompt: str
    answer: str
    before: int


class Conversation:
    """Turns of one text, with its token ids.

    Args:
        lm: the model.
        allowed_special: special tokens to recognise in what the user writes, as in ``encode``.
    """

    def __init__(self, lm: gw.GPT2CausalLM, allowed_special: Any = ()) -> None:
        assert lm.preprocessor is not None
        self.turns: list[Turn] = []
        self.token_ids: list[int] = []
        self._lm = lm
        self._tokenizer = lm.preprocessor.tokenizer
        self._allowed = allowed_special
        self._session: gw.Session | None = None  # keys and values, from the first answer on

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(turn.prompt + turn.answer for turn in self.turns)

    def begin(self, prompt: str) -> None:
        """Append what the user wrote: a turn without an answer.

        A word that follows a text without white space at its end is set apart by a space.
        """
        if prompt[:1].isalnum() and self.turns and self.text[-1:].strip():
            prompt = " " + prompt
        before = len(self.token_ids)
        if self.token_ids:
            self.token_ids += self._tokenizer.encode(prompt, self._allowed)
        else:
            assert self._lm.preprocessor is not None
            (self.token_ids,) = self._lm.encode_prompts(
                [prompt], self._lm.preprocessor, self._allowed
            )
        self.turns.append(Turn(prompt, "", before))

    def stream(
        self,
        max_new_tokens: int | None,
        stop_texts: list[str] | None,
        time_limit: float | None = None,
        cancellation: gw.Cancellation | None = None,
    ) -> gw.TextStream:
        """Start the model's answer: only tokens that are new since the last one are computed.

        A search, prompt lookup, or a draft model computes the whole text.
        """
        from gpt2_wgpu.samplers import SpeculativeSampler, runs_its_own_loop

        lm = self._lm
        drafts = lm.prompt_lookup_num_tokens or isinstance(lm.sampler, SpeculativeSampler)
        if drafts or runs_its_own_loop(lm.sampler):
            return lm.stream(
                self.token_ids,
                max_new_tokens=max_new_tokens,
                stop_texts=stop_texts,
                time_limit=time_limit,
                cancellation=cancellation,
            )
        if self._session is None:
            self._session = lm.session()
        self._session.edit(self.token_ids)
        return self._session.stream(
            max_new_tokens,
            stop_texts=stop_texts,
            time_limit=time_limit,
            cancellation=cancellation,
        )

    def close(self) -> None:
        """Free the GPU memory. Idempotent."""
        if self._session is not None:
            self._session.close()

    def end(self, answer: str, stream: gw.TextStream) -> None:
        """Append what the model wrote: the text that was shown, without an end token."""
        ids = list(stream.stats.token_ids)
        if stream.stats.finish_reason == "stop" and ids:
            ids.pop()
        if self._tokenizer.decode(ids) != answer:  # cut at a stop text, or inside a character
            ids = self._tokenizer.encode(answer)
        self.token_ids += ids
        self.turns[-1].answer = answer

    def undo(self) -> Turn:
        """Remove the last turn and return it; InvalidArgumentError if there is none."""
        if not self.turns:
            raise InvalidArgumentError("the text is empty: there is no turn to undo")
        turn = self.turns.pop()
        del self.token_ids[turn.before :]
        return turn

    def copied(self) -> Conversation:
        """Return a copy, for :meth:`restore`."""
        copy = Conversation(self._lm, self._allowed)
        copy.turns, copy.token_ids = list(self.turns), list(self.token_ids)
        return copy

    def restore(self, copy: Conversation) -> None:
        """Go back to the turns of a copy."""
        self.turns, self.token_ids = list(copy.turns), list(copy.token_ids)

    def clear(self) -> None:
        """Remove all turns."""
        self.turns, self.token_ids = [], []

    def save(self, path: Path, model: str) -> None:
        """Write the turns to a file; InvalidArgumentError if it cannot be written."""
        turns = [
            {"prompt": turn.prompt, "answer": turn.answer, "before": turn.before}
            for turn in self.turns
        ]
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "model": model,
            "turns": turns,
            "token_ids": self.token_ids,
        }
        try:
            path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise InvalidArgumentError(f"cannot write {path}: {error.strerror}") from None

    def load(self, path: Path) -> None:
        """Replace the turns by those of a file; InvalidArgumentError if it is not of `save`."""
        try:
            content: Any = strict_json.parse(path.read_bytes())
            turns, ids = _parsed(content)
        except OSError as error:
            raise InvalidArgumentError(f"cannot read {path}: {error.strerror}") from None
        except (KeyError, TypeError, ValueError):
            raise InvalidArgumentError(
                f"{path} is not a text that /save of this version has written"
            ) from None
        if len(ids) > self._lm.backbone.config.n_positions or not self._are_ids_of(turns, ids):
            raise InvalidArgumentError(
                f"{path} is of another model, {content['model']}: its tokens are not of this one"
            )
        self.turns, self.token_ids = turns, ids

    def _are_ids_of(self, turns: list[Turn], ids: list[int]) -> bool:
        text = "".join(turn.prompt + turn.answer for turn in turns)
        known = all(self._tokenizer.has_id(token) for token in ids)
        return known and self._tokenizer.decode_shown(ids) == text


def _parsed(content: Any) -> tuple[list[Turn], list[int]]:
    """Return turns and ids; KeyError, TypeError or ValueError for anything that is not valid."""
    if (content["format"], content["version"]) != (_FORMAT, _VERSION):
        raise ValueError(content["format"])
    turns = [Turn(each["prompt"], each["answer"], each["before"]) for each in content["turns"]]
    ids = content["token_ids"]
    befores = [turn.before for turn in turns]
    valid = (
        all(isinstance(turn.prompt, str) and isinstance(turn.answer, str) for turn in turns)
        and all(type(each) is int for each in [*befores, *ids])
        and befores == sorted(befores)
        and (not befores or befores[0] == 0)
        and all(before <= len(ids) for before in befores)
    )
    if not valid:
        raise ValueError("turns")
    return turns, ids
