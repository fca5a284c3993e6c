"""The proxy that one would write first: FastAPI, httpx, no keys, no checks, bodies passed through."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import uvicorn
from fastapi import FastAPI, Request, Response


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=100), timeout=60) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/v1/rerank")
async def rerank(request: Request) -> Response:
    """Pass a request on."""
    answer = await request.app.state.client.post(
        os.environ["BENCH_ENGINE"] + "/v1/rerank",
        content=await request.body(),
        headers={"Content-Type": "application/json"},
    )
    return Response(answer.content, answer.status_code, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["BENCH_PORT"]), access_log=False, log_level="warning")
