"""Conversation by the `llm` library, whose models this package adds: two turns of one text."""

import llm

model = llm.get_model("gpt2-wgpu/fairytales")
conversation = model.conversation()
for prompt in ("Once upon a time", " The next morning"):
    print(prompt, end="")
    for piece in conversation.prompt(prompt, max_tokens=24, temperature=0):
        print(piece, end="", flush=True)
print()
print("tokens of the last turn:", conversation.responses[-1].usage().output)
model.close()
