"""Generate: load a model, choose a sampler, continue a prompt."""

import gpt2_wgpu as gw

# A preset ("gpt2_base_en"), a directory or a model on the Hub ("owner/name"); files are cached.
with gw.GPT2CausalLM.from_preset("fairytales") as lm:
    # A seed makes the sequence of texts repeatable. Names work, too: "greedy", "top_k", "top_p".
    lm.compile(sampler=gw.samplers.TopP(p=0.95, temperature=0.8, seed=7))
    print(lm.generate("Once upon a time", max_length=24))  # max_length counts all tokens
    print(lm.generate("Once upon a time", max_length=24))  # the next seed of the sequence

    lm.compile("greedy")  # always the most likely token
    print(lm.generate("The king", max_length=24, strip_prompt=True))
