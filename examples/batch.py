"""Batch: continue prompts of different lengths at once, as text and as token ids."""

import gpt2_wgpu as gw

with gw.GPT2CausalLM.from_preset("fairytales") as lm:
    lm.compile("greedy")
    # Rows of a batch share the reads of the weights, so a batch is faster than its texts in turn.
    for text in lm.generate(["The king", "Once upon a time there was a"], max_length=24):
        print(text)

    # Without a preprocessor: ids and mask [B, T] in and out; the mask marks the prompt.
    preprocessor = lm.preprocessor
    assert preprocessor is not None  # a model from a preset has one
    packed = preprocessor.generate_preprocess(["The wolf", "The fox"], sequence_length=16)
    ids_only = gw.GPT2CausalLM(lm.backbone, preprocessor=None)  # shares the weights
    ids_only.compile("greedy")
    result = ids_only.generate(packed, stop_token_ids=None)
    print(preprocessor.generate_postprocess(result))
