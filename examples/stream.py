"""Stream: print text as it is computed, stop it, and read its statistics."""

import gpt2_wgpu as gw

with gw.GPT2CausalLM.from_preset("fairytales") as lm:
    lm.compile("greedy")
    # Leaving the block stops the text and frees its GPU memory, also after `break`.
    with lm.stream("Once upon a time", max_new_tokens=24, stop_texts=["The End"]) as stream:
        for piece in stream:  # whole characters; a possible start of a stop text is held back
            print(piece, end="", flush=True)
        print()
    stats = stream.stats
    print(f"{stats.new_tokens} tokens, {stats.tokens_per_second or 0:.1f} per second")
    print(f"finish reason: {stats.finish_reason}")  # "stop", "stop_text", "length", "context"
