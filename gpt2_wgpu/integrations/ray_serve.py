"""The HTTP API as a Ray Serve application: replicas on every GPU of a cluster.

    from ray import serve
    from gpt2_wgpu.integrations.ray_serve import completions

    serve.run(completions("gpt2_base_en", num_replicas=8, ray_actor_options={"num_gpus": 1}))

Needs the extras ``gpt2-wgpu[ray,server]``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.integrations.visible_gpus import open_assigned
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.batch_row import MOST_ROWS
from gpt2_wgpu.server.api_app import MAX_QUEUE, MAX_ROWS, MOST_QUEUE, create_app
from gpt2_wgpu.validation import integer


def completions(
    preset: str | os.PathLike[str] = "fairytales",
    model: str | None = None,
    *,
    dtype: str | None = None,
    adapter: int | str | None = "auto",
    max_rows: int = MAX_ROWS,
    max_queue: int = MAX_QUEUE,
    api_key: str | None = None,
    cors: Sequence[str] = (),
    **deployment: Any,
) -> Any:
    """Return an application for ``serve.run``; each replica loads the model on a GPU of its own.

    Args:
        preset: preset name, directory or hub id, as for ``GPT2CausalLM.from_preset``.
        model: name of the model in requests and answers; default: ``preset``.
        dtype: weight dtype, as for ``from_preset``. Set it for CPU adapters: by default each
            replica chooses the dtype it measures to be fastest.
        adapter: "auto": the GPU that Ray assigned to the replica (``num_gpus`` of
            ``ray_actor_options``), or wgpu's preferred adapter if it assigned none; else as for
            ``Device(adapter=...)``.
        max_rows: rows of a replica that share a step.
        max_queue: rows that wait for a place in a replica; further ones are answered with 429.
        api_key: as for ``create_app``.
        cors: as for ``create_app``.
        **deployment: options of ``serve.deployment``: ``num_replicas``, ``ray_actor_options``,
            ``autoscaling_config`` and others. ``max_ongoing_requests`` is ``max_rows +
            max_queue`` by default, so that a replica sees the requests that can share a step.
    """
    from ray import serve

    name = os.fspath(preset) if model is None else model
    ongoing = integer("max_rows", max_rows, 1, MOST_ROWS) + integer(
        "max_queue", max_queue, 0, MOST_QUEUE
    )

    def build() -> Any:
        """Return the ASGI app of this replica."""
        lm = GPT2CausalLM.from_preset(preset, dtype=dtype, device=open_assigned(adapter))
        return create_app(
            lm,
            name,
            max_rows=max_rows,
            max_queue=max_queue,
            api_key=api_key,
            cors=cors,
            owns_model=True,
        )

    replica = serve.ingress(build)()
    options: Any = {"name": "completions", "max_ongoing_requests": ongoing} | deployment
    made: Any = serve.deployment(replica, **options)
    return made.bind()
