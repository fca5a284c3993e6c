"""Stands in for the program `vllm` where the runtime around it is the subject: real process, real sockets,
our guard.

Behaves as vLLM 0.32.0 does, or as FAKE_VLLM (JSON) says:
    scores: good | inverted | constant | nan     what /v1/rerank answers
    routes: classify | embed                     which other route exists
    extra_tokens: N                              added to usage.prompt_tokens
    delay: seconds                               before each answer to a query that begins with "slow"
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
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tokenizers import Tokenizer

BEHAVIOUR: dict[str, Any] = json.loads(os.environ.get("FAKE_VLLM", "{}"))
ARGUMENTS = sys.argv[1:]
OPTIONS = dict(item[2:].split("=", 1) for item in ARGUMENTS if item.startswith("--") and "=" in item)


def record(**values: Any) -> None:
    path = Path(os.environ["FAKE_VLLM_RECORD"])
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))


def scores(query: str, documents: list[str]) -> list[float]:
    kind = BEHAVIOUR.get("scores", "good")
    if kind == "constant":
        return [0.5] * len(documents)
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


async def rerank(request: Request) -> Response:
    body = await request.json()
    if BEHAVIOUR.get("delay") and body["query"].startswith("slow"):
        await asyncio.sleep(BEHAVIOUR["delay"])
    if BEHAVIOUR.get("scores") == "nan":
        error = {
            "message": "Out of range float values are not JSON compliant: nan",
            "type": "BadRequestError",
        }
        return JSONResponse({"error": error | {"param": None, "code": 400}}, 400)
    tokenizer = Tokenizer.from_file(f"{ARGUMENTS[1]}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens = sum(len(tokenizer.encode(body["query"], text).ids) for text in body["documents"])
    found = scores(body["query"], body["documents"])
    results = [
        {"index": i, "document": {"text": body["documents"][i]}, "relevance_score": found[i]}
        for i in sorted(range(len(found)), key=lambda i: -found[i])
    ]
    tokens += BEHAVIOUR.get("extra_tokens", 0)
    return JSONResponse(
        {"id": "score-1", "model": body["model"], "results": results, "usage": {"prompt_tokens": tokens}}
    )


async def health(_request: Request) -> Response:
    return Response()


async def models(_request: Request) -> Response:
    card = {"id": OPTIONS["served-model-name"], "max_model_len": int(OPTIONS["max-model-len"])}
    return JSONResponse({"object": "list", "data": [card]})


async def openapi(_request: Request) -> Response:
    other = "/classify" if BEHAVIOUR.get("routes", "classify") == "classify" else "/v1/embeddings"
    return JSONResponse({"paths": {"/health": {}, "/v1/rerank": {}, "/score": {}, other: {}}})


def main() -> None:
    kept = ("RERANK_INTERNAL_TOKEN", "HF_TOKEN", "HF_HUB_OFFLINE", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE")
    record(pid=os.getpid(), arguments=ARGUMENTS, environment={name: os.environ.get(name) for name in kept})
    if BEHAVIOUR.get("die"):
        sys.stdout.write("(EngineCore pid=7) INFO 11-22 19:21:06 [core.py:1] starting\n")
        sys.stderr.write(BEHAVIOUR["die"] + "\n")
        sys.exit(1)
    if BEHAVIOUR.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    routes = [
        Route("/health", health),
        Route("/openapi.json", openapi),
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
