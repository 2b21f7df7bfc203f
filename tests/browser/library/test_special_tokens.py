"""Added and special tokens of a checkpoint in a page: the same files and ids as natively."""

from __future__ import annotations

from pathlib import Path

from tests.browser.library.browsing import Tab
from tests.browser.library.host import Host
from tests.tiny_checkpoints import vocabulary, write

SIZE = len(vocabulary())


def test_special_tokens_and_holes(tab: Tab, host: Host, tmp_path: Path) -> None:
    """Id 100 has no text and the largest logit; then [TITLE] is drawn, and a new end token."""
    tokens = {token: i + (i >= 100) for token, i in vocabulary().items()}
    title, end = SIZE + 1, SIZE + 2
    files = {
        "added_tokens.json": {"[TITLE]": title, "<|EOS|>": end},
        "special_tokens_map.json": {"eos_token": "<|EOS|>"},
        "generation_config.json": {"eos_token_id": [end]},
    }
    write(tmp_path, SIZE + 4, says=[100, title, end], tokens=tokens, files=files)
    source = host.add("special", {path.name: path.read_bytes() for path in tmp_path.iterdir()})
    found = tab.evaluate(
        """async (source) => {
          const lm = await GPT2.load(source, { dtype: "float32" });
          const prompt = "he<|EOS|>";
          async function say(options) {
            const stream = lm.stream(prompt, { temperature: 0, maxTokens: 3, ...options });
            let text = "";
            for await (const piece of stream) text += piece;
            return [text, stream.stats.promptTokens, stream.stats.finishReason];
          }
          const penalty = { presencePenalty: 100 };
          const all = {
            plain: await say({}),
            allowed: await say({ allowedSpecial: ["<|EOS|>"] }),
            all: await say({ allowedSpecial: "all" }),
            ended: await say(penalty),
            stopped: await say({ ...penalty, stop: "<|EOS|>" }),
            wrong: await thrown(() => say({ allowedSpecial: "some" })),
          };
          await lm.dispose();
          return all;
        }""",
        source,
    )
    assert found["plain"] == ["[TITLE]" * 3, 2 + len("<|EOS|>"), "length"]
    assert found["allowed"] == found["all"] == ["[TITLE]" * 3, 3, "length"]
    assert found["ended"][::2] == ["[TITLE]", "stop"]
    assert found["stopped"][::2] == ["[TITLE]", "stop_text"]
    assert found["wrong"]["name"] == "TokenizerError"


def test_stop_texts_of_a_checkpoint_can_be_switched_off(
    tab: Tab, host: Host, tmp_path: Path
) -> None:
    """``stop: []`` is none; without ``stop`` they apply, also in a session."""
    files = {"generation_config.json": {"stop_strings": ["zz"]}}
    write(tmp_path, SIZE, says=[vocabulary()["z"]], files=files)
    source = host.add("stopping", {path.name: path.read_bytes() for path in tmp_path.iterdir()})
    found = tab.evaluate(
        """async (source) => {
          const lm = await GPT2.load(source, { dtype: "float32" });
          const say = (options) => lm.generate("he", { temperature: 0, maxTokens: 3, ...options });
          const session = await lm.session("he");
          const texts = [
            await say({}), await say({ stop: [] }), await say({ stop: "zzz" }),
            await session.generate({ temperature: 0, maxTokens: 3, stop: [] }),
            await session.generate({ temperature: 0, maxTokens: 3 }),
          ];
          const { stop } = lm.info;
          await lm.dispose();
          return { texts, stop };
        }""",
        source,
    )
    assert found == {"texts": ["", "zzz", "", "zzz", ""], "stop": ["zz"]}
