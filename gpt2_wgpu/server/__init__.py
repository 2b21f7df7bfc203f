"""HTTP server with OpenAI's completions API: an ASGI app (Starlette) and its runner (uvicorn).

Needs the extra ``gpt2-wgpu[server]``.
"""
