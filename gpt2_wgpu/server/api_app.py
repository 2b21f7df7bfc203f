"""ASGI app: OpenAI's `/v1/completions` and `/v1/models`, `/health` and `/metrics`."""

from __future__ import annotations

import time
import warnings
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.batch_row import MOST_ROWS
from gpt2_wgpu.models.continuous_batch import ContinuousBatch
from gpt2_wgpu.sampling_parameters import SEARCH_SETTINGS
from gpt2_wgpu.server import metrics
from gpt2_wgpu.server.access import Access
from gpt2_wgpu.server.api_errors import APIError, as_json
from gpt2_wgpu.server.completions import Completions
from gpt2_wgpu.server.completions_endpoint import CompletionsEndpoint
from gpt2_wgpu.validation import integer

MAX_ROWS, MAX_QUEUE, MAX_BODY = 16, 128, 1 << 20
MOST_QUEUE = 1 << 16


def create_app(
    lm: GPT2CausalLM,
    model: str = "gpt2",
    *,
    max_rows: int = MAX_ROWS,
    max_queue: int = MAX_QUEUE,
    max_body: int = MAX_BODY,
    api_key: str | None = None,
    cors: Sequence[str] = (),
    hosts: Collection[str] | None = None,
    owns_model: bool = False,
) -> Starlette:
    """Return the ASGI app of a model.

    Args:
        lm: a model with a preprocessor.
        model: its name in requests and answers.
        max_rows: rows that share a step.
        max_queue: rows that wait for a place; further ones are answered with 429.
        max_body: largest body of a request, in bytes; larger ones are answered with 413.
        api_key: key that clients have to send as `Authorization: Bearer KEY`; None: none needed.
        cors: origins whose pages may read answers, or "*".
        hosts: names of this server, without port; None: any. Of a server on this machine alone
            they keep out pages whose name was rebound to it.
        owns_model: whether the end of the app's lifespan disposes the model; else the caller does,
            after it.

    Raises:
        InvalidArgumentError: a model without a preprocessor, or a number out of range.
    """
    if lm.preprocessor is None:
        raise InvalidArgumentError("this model has no preprocessor, which texts need")
    if search := [name for name in SEARCH_SETTINGS if name in lm.generation_defaults]:
        warnings.warn(
            f"{model}: generation_config.json sets {', '.join(search)}, but the server has no "
            "searches: its texts are those of the other settings",
            stacklevel=2,
        )
    if "time_limit" in lm.generation_limits:
        warnings.warn(
            f"{model}: generation_config.json sets max_time, but the server has no time limits: "
            "a request ends when its client hangs up",
            stacklevel=2,
        )
    max_rows = integer("max_rows", max_rows, 1, MOST_ROWS)
    limit = max_rows + integer("max_queue", max_queue, 0, MOST_QUEUE)
    found = metrics.Metrics()
    state: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with lm if owns_model else nullcontext():
            async with ContinuousBatch(lm, max_rows=max_rows) as batch:
                state["batch"] = batch
                state["completions"] = Completions(lm, batch, model, limit, found)
                yield

    endpoint = CompletionsEndpoint(lm, lambda: state["completions"], found, max_body)
    card = {"id": model, "object": "model", "created": int(time.time()), "owned_by": "gpt2-wgpu"}

    async def models(_: Any) -> Any:
        return _json({"object": "list", "data": [card]})

    async def one_model(request: Any) -> Any:
        name = request.path_params["name"]
        if name != model:
            message = f"The model '{name}' does not exist: this server has '{model}'"
            raise APIError(404, message, "model", "model_not_found")
        return _json(card)

    async def health(_: Any) -> Any:
        return _json({"status": "ok", "model": model})

    async def measurements(_: Any) -> Any:
        stats = state["batch"].stats()
        return Response(found.text(stats.running, stats.waiting), media_type=metrics.CONTENT_TYPE)

    return Starlette(
        routes=[
            Route("/v1/completions", endpoint, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one_model),
            Route("/health", health),
            Route("/metrics", measurements),
        ],
        middleware=[
            *([_cors(cors)] if cors else []),
            Middleware(Access, api_key=api_key, hosts=hosts),
        ],
        exception_handlers={HTTPException: _http_error, APIError: _api_error},
        lifespan=lifespan,
    )


def _cors(origins: Sequence[str]) -> Any:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
    )


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    return Response(as_json(value), status, headers, media_type="application/json")


async def _http_error(request: Any, error: Any) -> Any:
    """Return the answer for an unknown path or method."""
    message = f"{error.detail}: {request.method} {request.url.path}"
    return _json(APIError(error.status_code, message).body(), error.status_code, error.headers)


async def _api_error(_: Any, error: Any) -> Any:
    return _json(error.body(), error.status, error.headers)
