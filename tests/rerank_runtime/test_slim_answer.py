"""What the guard takes out of vLLM's answers, for whom."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rerank_runtime.slim_answer import Message, SlimSend, slim, wanted

USAGE = {"prompt_tokens": 9, "total_tokens": 9}


def answer(*, documents: bool) -> dict[str, Any]:
    """As vLLM 0.32 builds it; a score that no shorter decimal tells apart from its neighbours."""
    results: list[dict[str, Any]] = [
        {"index": 1, "relevance_score": 0.1 + 0.2},
        {"index": 0, "relevance_score": 5e-324},
    ]
    if documents:
        for result in results:
            result["document"] = {"text": "ein Bär \U0001f43c", "multi_modal": None}
    return {"id": "score-1", "model": "m", "usage": USAGE, "results": results}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([(b"x-rerank-documents", b"omit")], True),
        ([(b"x-rerank-documents", b"keep")], False),
        ([(b"x-other", b"omit")], False),
    ],
)
def test_who_asks(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert wanted(headers) is expected


def test_scores_and_all_else_stay_to_the_last_bit() -> None:
    assert json.loads(slim(json.dumps(answer(documents=True)).encode())) == answer(documents=False)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"results": null}', b'{"results": [1]}', b'{"data": []}']
)
def test_what_is_no_ranking_stays_as_it_is(body: bytes) -> None:
    assert slim(body) == body


async def sent(*messages: Message, loop_bytes: int = 2**20) -> list[Message]:
    found: list[Message] = []

    async def send(message: Message) -> None:
        found.append(message)

    with ThreadPoolExecutor(1) as threads:
        through = SlimSend(send, threads, loop_bytes)
        for message in messages:
            await through(message)
    return found


@pytest.mark.parametrize("loop_bytes", [2**20, 10])
async def test_an_answer_in_pieces_becomes_one_with_its_new_length(loop_bytes: int) -> None:
    body = json.dumps(answer(documents=True)).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"x-rerank-truncated", b"1;1")]
    start, end = await sent(
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": body[:50], "more_body": True},
        {"type": "http.response.body", "body": body[50:]},
        loop_bytes=loop_bytes,
    )
    assert json.loads(end["body"]) == answer(documents=False)
    assert dict(start["headers"]) == {
        b"content-length": b"%d" % len(end["body"]),
        b"x-rerank-truncated": b"1;1",
    }


async def test_another_status_passes_as_it_comes() -> None:
    messages: list[Message] = [
        {"type": "http.response.start", "status": 400, "headers": []},
        {"type": "http.response.body", "body": b'{"error": {}}'},
    ]
    assert await sent(*messages) == messages
