"""Session: go on with a text, go back, try another way, and change what was said."""

import gpt2_wgpu as gw

with gw.GPT2CausalLM.from_preset("fairytales") as lm:
    lm.compile("top_k")
    with lm.session("Once upon a time there was a king") as session:
        session.generate(16, seed=1)
        with session.fork() as other:  # shares all tokens so far
            print("one way:", session.generate(12, seed=2))
            print("another:", other.generate(12, seed=3))
        session.rewind(12)
        session.append(" One day")
        print("again:  ", session.generate(12, seed=2))
        # The tokens before the change are kept.
        kept = session.edit(session.text.replace("One day", "At night"))
        print(f"{kept} of {len(session)} tokens kept")
        print("edited: ", session.generate(12, seed=2))
