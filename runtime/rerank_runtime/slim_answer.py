"""Answers without the documents, for a caller that has them and says so. Used by the guard.

vLLM repeats every document in its answer: a megabyte back for a megabyte sent, which the gateway would parse
to throw it away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Executor
from typing import Any

from pydantic_core import from_json, to_json

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

HEADER = b"x-rerank-documents"
OMIT = b"omit"


def wanted(headers: Headers) -> bool:
    """Whether a request's headers ask for an answer without documents."""
    return any(name == HEADER and value == OMIT for name, value in headers)


def slim(body: bytes) -> bytes:
    """A ranking without its documents; what is no ranking stays as it is."""
    try:
        answer = from_json(body, cache_strings=False)
        for result in answer["results"]:
            result.pop("document", None)
    except (ValueError, TypeError, KeyError, AttributeError):
        return body
    return to_json(answer)


class SlimSend:
    """A send that takes the documents out of an answer of status 200. Large ones are read in `threads`, those
    of more than `loop_bytes`.
    """

    def __init__(self, send: Send, threads: Executor, loop_bytes: int) -> None:
        self._send = send
        self._threads = threads
        self._loop_bytes = loop_bytes
        self._start: Message | None = None
        self._chunks: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._finish(self._start, b"".join(self._chunks))
        else:
            await self._send(message)

    async def _finish(self, start: Message, body: bytes) -> None:
        if len(body) > self._loop_bytes:
            body = await asyncio.get_running_loop().run_in_executor(self._threads, slim, body)
        else:
            body = slim(body)
        kept = [header for header in start.get("headers", ()) if header[0] != b"content-length"]
        await self._send(dict(start, headers=[*kept, (b"content-length", b"%d" % len(body))]))
        await self._send({"type": "http.response.body", "body": body})
