"""Stands in for the program `vllm` where the runtime around it is the subject: real process, real sockets,
our guard.

As strict as vLLM 0.32.0 with what it is asked, and behaves as it does, or as the file FAKE_VLLM (JSON, read
again for each request) says:
    scores: good | inverted | constant | saturated | nan   what /v1/rerank answers
    routes: classify | embed | none              which other routes exist
    extra_tokens: N                              added to usage.prompt_tokens
    instruction: ""                              given to the template with each request
    delay: seconds                               before each answer to a query that begins with "slow"
    broken: true                                 /v1/rerank answers 500, and the log tells
    stuck: true                                  /v1/rerank never answers
    busy: true                                   /metrics tells of work nevertheless
    sick: true                                   /health never answers
    die: text                                    printed as the last line before exit code 1, at start
    deaf: true                                   never listens
Written to FAKE_VLLM_RECORD: process id, command line and environment.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import uvicorn
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from tokenizers import Tokenizer


def behaviour() -> dict[str, Any]:
    path = Path(os.environ.get("FAKE_VLLM", "/nonexistent"))
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


ARGUMENTS = sys.argv[1:]
OPTIONS = dict(item[2:].split("=", 1) for item in ARGUMENTS if item.startswith("--") and "=" in item)


def record(**values: Any) -> None:
    path = Path(os.environ["FAKE_VLLM_RECORD"])
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))


def scores(query: str, documents: list[str]) -> list[float]:
    kind = behaviour().get("scores", "good")
    if kind == "constant":
        return [0.5] * len(documents)
    if kind == "saturated":
        return [1.0] * len(documents)
    words = {word.strip("?.,").lower() for word in query.split()} - {
        "is",
        "a",
        "what",
        "of",
        "do",
        "who",
        "and",
    }
    shares = [
        len(words & {w.strip("?.,()").lower() for w in text.split()}) / len(words) for text in documents
    ]
    return [1 - share for share in shares] if kind == "inverted" else shares


def refusal(status: int, message: str, param: str | None = None) -> Response:
    kind = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}[status]
    error = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"error": error}, status)


def invalid(request: Request, content: bytes) -> Response | dict[str, Any]:
    """The request's body, or how vLLM refuses it."""
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        return refusal(400, "Unsupported Media Type: Only 'application/json' is allowed")
    try:
        body: dict[str, Any] = json.loads(content)
    except ValueError as error:
        return refusal(400, f"JSON decode error: {error}")
    if not isinstance(body.get("query"), str):
        return refusal(400, "Input should be a valid string", "query")
    documents = body.get("documents")
    if not isinstance(documents, list) or not all(isinstance(text, str) for text in documents):
        return refusal(400, "Input should be a valid list", "documents")
    if not documents:
        return refusal(400, "At least one text_pair element must be given")
    if type(body.get("top_n", 0)) is not int or body.get("top_n", 0) < 0:
        return refusal(400, "Input should be a valid integer", "top_n")
    if body.get("model") not in (None, OPTIONS["served-model-name"]):
        return refusal(404, f"The model `{body['model']}` does not exist.", "model")
    return body


def prompt_tokens(body: dict[str, Any]) -> int:
    tokenizer = Tokenizer.from_file(f"{OPTIONS.get('tokenizer', ARGUMENTS[1])}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if "chat-template" not in OPTIONS:
        pairs = [(body["query"], text) for text in body["documents"]]
        return sum(len(tokenizer.encode(*pair).ids) for pair in pairs)
    template = chat_template(OPTIONS["chat-template"])
    given = {k: behaviour()[k] for k in ("instruction",) if k in behaviour()}
    prompts = [
        template.render(
            messages=[{"role": "query", "content": body["query"]}, {"role": "document", "content": text}],
            **given,
        )
        for text in body["documents"]
    ]
    return sum(len(tokenizer.encode(prompt).ids) for prompt in prompts)


@lru_cache
def chat_template(path: str) -> Template:
    # Read once, at start, as vLLM does.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(Path(path).read_text())


async def rerank(request: Request) -> Response:
    body = invalid(request, await request.body())
    if isinstance(body, Response):
        return body
    now = behaviour()
    if now.get("stuck"):
        await asyncio.sleep(600)
    if now.get("delay") and body["query"].startswith("slow"):
        await asyncio.sleep(now["delay"])
    if now.get("broken"):
        sys.stderr.write("(APIServer pid=7) ERROR:    Exception in ASGI application\n")
        sys.stderr.flush()
        return refusal(500, "Internal server error")
    if now.get("scores") == "nan":
        return refusal(400, "Out of range float values are not JSON compliant: nan")
    found = scores(body["query"], body["documents"])
    FINISHED[0] += len(found)
    results = [
        {"index": i, "document": {"text": body["documents"][i]}, "relevance_score": found[i]}
        for i in sorted(range(len(found)), key=lambda i: -found[i])
    ]
    tokens = prompt_tokens(body) + now.get("extra_tokens", 0)
    return JSONResponse(
        {
            "id": "score-1",
            "model": OPTIONS["served-model-name"],
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


FINISHED = [0]


async def metrics(_request: Request) -> Response:
    FINISHED[0] += int(behaviour().get("busy", False))
    lines = [
        "# HELP vllm:request_success_total Count of successfully processed requests.",
        "# TYPE vllm:request_success_total counter",
        f'vllm:request_success_total{{finished_reason="stop",model_name="m"}} {float(FINISHED[0])}',
        'vllm:request_success_total{finished_reason="abort",model_name="m"} 0.0',
        'vllm:request_success_created{finished_reason="stop",model_name="m"} 1.7e+09',
    ]
    return PlainTextResponse("\n".join(lines) + "\n")


async def health(_request: Request) -> Response:
    if behaviour().get("sick"):
        await asyncio.sleep(600)
    return Response()


async def models(_request: Request) -> Response:
    card = {"id": OPTIONS["served-model-name"], "max_model_len": int(OPTIONS["max-model-len"])}
    return JSONResponse({"object": "list", "data": [card]})


async def openapi(_request: Request) -> Response:
    others = {"classify": "/classify", "embed": "/v1/embeddings", "none": "/pooling"}
    other = others[behaviour().get("routes", "classify")]
    return JSONResponse({"paths": {"/health": {}, "/v1/rerank": {}, "/score": {}, other: {}}})


def main() -> None:
    kept = (
        "RERANK_INTERNAL_TOKEN",
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
        "RERANK_INTAKE",
    )
    record(pid=os.getpid(), arguments=ARGUMENTS, environment={name: os.environ.get(name) for name in kept})
    if "die" in behaviour():
        sys.stdout.write("(EngineCore pid=7) INFO 11-22 19:21:06 [core.py:1] starting\n")
        sys.stderr.write(behaviour()["die"] + "\n")
        sys.exit(1)
    if behaviour().get("deaf"):
        sys.stdout.write("(EngineCore pid=7) INFO 11-22 19:21:06 [core.py:1] waiting for a lock\n")
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    routes = [
        Route("/health", health),
        Route("/openapi.json", openapi),
        Route("/metrics", metrics),
        Route("/v1/models", models),
        Route("/v1/rerank", rerank, methods=["POST"]),
        Route("/score", rerank, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    module, _, name = OPTIONS["middleware"].rpartition(".")
    app.add_middleware(getattr(importlib.import_module(module), name))
    # Like vLLM, it gives requests in flight no time when it is told to stop.
    config = uvicorn.Config(
        app, OPTIONS["host"], int(OPTIONS["port"]), log_level="warning", timeout_graceful_shutdown=0
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
