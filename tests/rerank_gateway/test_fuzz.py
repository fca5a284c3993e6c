"""Whatever bytes come: no 500, no hang, no second request at a replica."""

import asyncio
import json
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from rerank_gateway import rerank_answer, rerank_request
from rerank_gateway.auth import Authenticator
from rerank_gateway.backend import BackendAnswer
from rerank_gateway.dialects import paths
from rerank_gateway.dialects.call import Call, Stamp
from rerank_gateway.errors import ApiError
from rerank_gateway.estimate import Estimator
from rerank_gateway.head import read
from rerank_gateway.records import Kind, parse
from rerank_gateway.rerank_answer import Ranking
from rerank_gateway.rerank_request import RerankRequest
from rerank_gateway.state import State
from tests.rerank_gateway import objects
from tests.rerank_gateway.fake_engine import FakeEngine
from tests.rerank_gateway.fake_engine import RerankRequest as Strict
from tests.rerank_gateway.fuzzing import fuzz
from tests.rerank_gateway.harness import BODY, MINTED, ByHand, Running

pytestmark = pytest.mark.slow

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
document = st.text(max_size=30) | st.fixed_dictionaries({"text": st.text(max_size=30)})
documents = st.lists(document, min_size=1, max_size=5)
MAY_BE_MISSING = ("model", "query", "documents", "queries", "items", "data_1", "data_2", "text_1", "text_2")
path = st.sampled_from([*paths.PATHS, "/models/minilm/rerank"])
fields = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("minilm") | anything,
        "query": st.text(min_size=1, max_size=30) | anything,
        "documents": documents | anything,
        "texts": documents | anything,
        "queries": document | documents | anything,
        "items": document | documents | anything,
        "data_1": document | documents | anything,
        "data_2": document | documents | anything,
        "text_1": document | documents | anything,
        "text_2": document | documents | anything,
        "top_k": st.integers(-2, 9) | anything,
        "truncation": st.booleans() | anything,
        "rank_fields": st.lists(st.sampled_from(["text", "title"])) | anything,
        "raw_scores": st.booleans() | anything,
        "return_text": st.booleans() | anything,
        "top_n": st.integers(-2, 9) | st.sampled_from(["2", " 3 ", "x", 2.0]) | anything,
        "max_tokens_per_doc": st.integers(-2, 9999) | anything,
        "return_documents": st.booleans() | anything,
        "extra": anything,
    },
)


def outcome(path: str, body: bytes) -> Call | ApiError:
    try:
        return paths.parse(path, body)
    except ApiError as error:
        return error


@fuzz(400)
@given(path, fields)
def test_a_body_is_refused_by_name_or_fits_the_strict_engine(path: str, body: dict[str, Any]) -> None:
    call = outcome(path, json.dumps(body).encode())
    if isinstance(call, ApiError):
        assert call.status == 400
        named = (call.param or "model").split("[")[0]
        assert named in MAY_BE_MISSING or named in body
        assert call.code == "invalid_json" or named in str(call)
        return
    assert call.requests
    for request in call.requests:
        sent = json.loads(rerank_request.backend_body(request, "minilm"))
        strict = Strict.model_validate(sent)
        assert set(sent) <= {"model", "query", "documents", "top_n", "max_tokens_per_doc"}
        assert strict.documents == request.documents
        assert strict.max_tokens_per_doc == (request.max_tokens_per_doc or 0)
        assert 0 <= strict.top_n <= len(request.documents)
        assert min(Estimator().pairs(request.query, request.documents)) > 0
    rankings = [_ranked(request) for request in call.requests]
    answer = json.loads(call.answer(rankings, Stamp("minilm", "r", 1)))
    assert str(answer).count("score': ") == sum(len(ranking.scores) for ranking in rankings)


def _ranked(request: RerankRequest) -> Ranking:
    """The documents as they came, each worse than the one before."""
    count = min(request.top_n or len(request.documents), len(request.documents))
    return Ranking([(index, -float(index)) for index in range(count)], count)


@fuzz(300)
@given(path, st.binary(max_size=200))
def test_bytes_are_a_body_or_a_400(path: str, body: bytes) -> None:
    refused = outcome(path, body)
    if isinstance(refused, ApiError):
        assert refused.status == 400
        assert json.loads(refused.body())["message"]


REQUEST = RerankRequest("q", ["a", "b", "c"], None, None)
result = st.fixed_dictionaries({"index": st.integers(-1, 4) | anything, "relevance_score": anything})


@fuzz(200)
@given(
    st.fixed_dictionaries(
        {
            "results": st.permutations(range(3)).flatmap(
                lambda order: st.tuples(
                    *(
                        st.fixed_dictionaries(
                            {"index": st.just(index), "relevance_score": st.floats(allow_nan=False)}
                        )
                        for index in order
                    )
                )
            )
            | st.lists(result, max_size=4)
            | anything,
            "usage": st.just({"prompt_tokens": 3}) | anything,
        }
    )
    | anything
)
def test_an_answer_is_a_whole_ranking_or_refused(answer: Any) -> None:
    body = json.dumps(answer).encode()
    try:
        ranking = rerank_answer.parse(BackendAnswer(200, body), REQUEST)
    except rerank_answer.BadAnswerError:
        return
    assert sorted(index for index, _ in ranking.scores) == [0, 1, 2]
    ordered = [score for _, score in ranking.scores]
    assert ordered == sorted(ordered, reverse=True)


@fuzz(300)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=5)), min_size=2, max_size=20))
def test_scores_of_pairs_come_back_in_their_order(pairs: list[tuple[str, str]]) -> None:
    body = {"model": "m", "text_1": [first for first, _ in pairs], "text_2": [second for _, second in pairs]}
    call = outcome("/score", json.dumps(body).encode())
    assert not isinstance(call, ApiError)
    assert len(call.requests) == len({first for first, _ in pairs})
    known = {pair: float(number) for number, pair in enumerate(dict.fromkeys(pairs))}
    rankings = [
        Ranking(
            sorted(
                ((index, known[request.query, text]) for index, text in enumerate(request.documents)),
                key=lambda entry: -entry[1],
            ),
            1,
        )
        for request in call.requests
    ]
    answer = json.loads(call.answer(rankings, Stamp("m", "r", 1)))
    assert [(entry["index"], entry["score"]) for entry in answer["data"]] == [
        (place, known[pair]) for place, pair in enumerate(pairs)
    ]
    assert answer["usage"]["total_tokens"] == len(call.requests)


RANKED = json.dumps(
    {"results": [{"index": i, "relevance_score": 0.5} for i in range(3)], "usage": {"prompt_tokens": 3}}
).encode()


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (b"", None),
        (b"1;2", {"documents": [2], "count": 1}),
        (b"2;0,1;query", {"documents": [0, 1], "count": 2, "query": True}),
        (b"0;;query", {"documents": [], "count": 0, "query": True}),
    ],
)
def test_a_report_is_told(report: bytes, told: Any) -> None:
    ranking = rerank_answer.parse(BackendAnswer(200, RANKED, report), REQUEST)
    call = outcome("/rerank", json.dumps({**BODY, "documents": REQUEST.documents}).encode())
    assert not isinstance(call, ApiError)
    built = json.loads(call.answer([ranking], Stamp("m", "r", 1)))
    assert built["meta"].get("truncated") == told


@pytest.mark.parametrize(
    "report",
    [b"1", b"1;3", b"4;0", b"-1;0", b"1;x", b"1;0;", b"1;0;quer", b"1;,0", b";", b"1;" + b"0," * 9**5],
)
def test_a_report_that_cannot_be_is_a_bad_answer(report: bytes) -> None:
    with pytest.raises(rerank_answer.BadAnswerError):
        rerank_answer.parse(BackendAnswer(200, RANKED, report), REQUEST)


@fuzz(150)
@given(st.binary(max_size=12) | st.from_regex(rb"[0-4];[0-4](,[0-4])*(;query)?", fullmatch=True))
def test_any_report_is_told_or_refused(report: bytes) -> None:
    try:
        ranking = rerank_answer.parse(BackendAnswer(200, RANKED, report), REQUEST)
    except rerank_answer.BadAnswerError:
        return
    if ranking.truncated is not None:
        assert all(0 <= index < 3 for index in ranking.truncated.documents)


@fuzz(400)
@given(st.integers(400, 599), st.binary(max_size=200) | anything.map(lambda body: json.dumps(body).encode()))
def test_a_refusal_is_never_a_success(status: int, body: bytes) -> None:
    assert rerank_answer.refusal(status, body).status in (400, 413, 422, 502, 503)


header_name = st.sampled_from(
    [b"host", b"authorization", b"x-api-key", b"content-type", b"expect", b"x-request-id", b"x-other"]
)


@fuzz(400)
@given(st.lists(st.tuples(header_name, st.binary(max_size=30)), max_size=8))
def test_any_head_is_read(headers: list[tuple[bytes, bytes]]) -> None:
    head = read(b"/v1/rerank", headers)
    assert head.request_id.isascii()
    names = [name for name, _ in headers]
    credentials = names.count(b"authorization") + names.count(b"x-api-key")
    if credentials > 1 or names.count(b"host") != 1:
        assert head.problem is not None


KNOWN = ByHand(State())
KNOWN.put(objects.api_key(MINTED))
credential = (
    st.text(max_size=80)
    | st.from_regex(r"rk_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_?[0-9A-Za-z]{6}", fullmatch=True)
    | st.builds(
        lambda at, character: MINTED.text[:at] + character + MINTED.text[at + 1 :],
        st.integers(0, len(MINTED.text) - 1),
        st.characters(max_codepoint=255),
    )
    | st.builds(lambda at: MINTED.text[:at], st.integers(0, len(MINTED.text)))
    | st.builds(lambda before, after: before + MINTED.text + after, st.text(max_size=3), st.text(max_size=3))
)


@fuzz(600)
@given(credential)
def test_only_the_whole_key_is_accepted(text: str) -> None:
    authenticator = Authenticator(KNOWN.state, KNOWN, 900)
    if text == MINTED.text:
        authenticator.authenticate(text, 1_800_000_000)
        return
    with pytest.raises(ApiError) as refused:
        authenticator.authenticate(text, 1_800_000_000)
    assert refused.value.status == 401


@fuzz(400)
@given(st.sampled_from(Kind), anything | st.sampled_from([objects.model(), objects.endpoint_slice(["::1"])]))
def test_any_object_is_a_record_or_refused(kind: Kind, body: Any) -> None:
    try:
        parsed = parse(kind, body)
    except ValueError:
        return
    assert parsed.id.name


token = st.sampled_from(
    [
        *(
            "POST",
            "GET",
            "HEAD",
            "OPTIONS",
            "CONNECT",
            "PRI",
            " ",
            "  ",
            "\t",
            "\r\n",
            "\n",
            "\r",
            "\0",
            ":",
            ": ",
        ),
        *("/v1/rerank", "/v1/models", "*", "http://x/", "%2e", "?", "#", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"),
        *(
            "Host: x\r\n",
            "Content-Length: ",
            "Transfer-Encoding: chunked\r\n",
            "Content-Type: application/json\r\n",
        ),
        *("Expect: 100-continue\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: close\r\n"),
        *(
            "0",
            "5",
            "-1",
            "ffff",
            "99999999999999999999",
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            ";a=b",
            "{}",
            "\r\n\r\n",
        ),
        *(
            "POST /v1/rerank HTTP/1.1\r\nHost: x\r\n",
            f"Authorization: Bearer {MINTED.text}\r\n",
            "X: y\r\n z\r\n",
        ),
    ]
) | st.text(st.characters(max_codepoint=255), max_size=8)


@pytest.mark.asyncio(loop_scope="session")
@fuzz(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(token, min_size=1, max_size=20), st.integers(1, 3))
async def test_any_pieces_of_http_are_answered_or_closed(
    gateway: Running, engine: FakeEngine, pieces: list[str], writes: int
) -> None:
    engine.seen.clear()
    whole = "".join(pieces).encode("latin-1")
    size = len(whole) // writes + 1
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        for at in range(0, len(whole), size):
            writer.write(whole[at : at + size])
            await asyncio.sleep(0)
        writer.write(b"\r\n\r\n" * 300 + b"\0")  # enough for any length that the pieces could declare
        answer = await asyncio.wait_for(reader.read(65536), 5)
    except ConnectionError:
        answer = b""
    finally:
        writer.transport.abort()
    assert b"HTTP/1.1 500" not in answer
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert engine.seen == []


@pytest.mark.asyncio(loop_scope="session")
@fuzz(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(string.printable)), min_size=1, max_size=5))
async def test_a_damaged_request_hangs_nothing(
    gateway: Running, engine: FakeEngine, damage: list[tuple[int, str]]
) -> None:
    engine.seen.clear()
    body = json.dumps(BODY).encode()
    whole = bytearray(
        b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n" % (len(body), body)
    )
    for position, character in damage:
        whole[position % len(whole)] = ord(character)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(bytes(whole) + b"\r\n\r\n" * 300)  # enough for any length that the damage could declare
    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert not answer or int(answer.split(b" ", 2)[1]) in (*range(400, 500), 505)
    assert engine.seen == []
