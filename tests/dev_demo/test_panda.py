"""The judgement of the demo: what counts as a correct answer, and what is refused."""

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
import yaml

from dev.demo.objects import EXAMPLES
from dev.demo.panda import DOCUMENTS, PANDA, AnswerError, ask, panda_first, ranking, request_body


def answer(*scores: tuple[int, float]) -> dict[str, Any]:
    return {"results": [{"index": index, "relevance_score": score} for index, score in scores]}


def test_the_panda_text_first_is_correct() -> None:
    ranked = ranking(answer((2, 0.7455), (1, 0.4255), (0, 0.0914)))
    assert [entry.document for entry in ranked] == [PANDA, "it is a bear", "hi"]
    assert panda_first(ranked)


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param([(0, 0.9), (2, 0.8), (1, 0.1)], id="hi first, as a model without its template answers"),
        pytest.param([(2, 0.5), (1, 0.5), (0, 0.5)], id="a draw is no victory"),
    ],
)
def test_another_order_is_not(scores: list[tuple[int, float]]) -> None:
    assert not panda_first(ranking(answer(*scores)))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({}, id="no results"),
        pytest.param({"results": [{"index": 2}]}, id="no score"),
        pytest.param({"results": "none"}, id="not a list"),
        pytest.param(answer((2, 0.9), (1, 0.5)), id="one document is missing"),
        pytest.param(answer((2, 0.9), (2, 0.5), (0, 0.1)), id="one document twice"),
        pytest.param(answer((3, 0.9), (1, 0.5), (0, 0.1)), id="an index that was not sent"),
        pytest.param(answer((-1, 0.9), (1, 0.5), (0, 0.1)), id="a negative index"),
        pytest.param(answer((2, 0.1), (1, 0.5), (0, 0.9)), id="worst first"),
        pytest.param(answer((2, math.nan), (1, math.nan), (0, math.nan)), id="not a number"),
    ],
)
def test_what_is_no_ranking_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(AnswerError):
        ranking(bad)


class Gateway(BaseHTTPRequestHandler):
    """Answers every POST with what the test set, and keeps the request."""

    status: ClassVar[int]
    body: ClassVar[bytes]
    seen: ClassVar[dict[str, Any]]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        Gateway.seen = {"path": self.path, "key": self.headers["Authorization"], "body": json.loads(content)}
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Keep the test's output clean."""


@pytest.fixture
def gateway() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_request_is_the_tutorial_s(gateway: str) -> None:
    Gateway.status, Gateway.body = 200, json.dumps(answer((2, 0.7), (1, 0.4), (0, 0.1))).encode()
    assert panda_first(ask(gateway, "rk_test", "minilm"))
    assert Gateway.seen["path"] == "/v1/rerank"
    assert Gateway.seen["key"] == "Bearer rk_test"
    assert Gateway.seen["body"] == {
        "model": "minilm",
        "query": "What is a panda?",
        "documents": ["hi", "it is a bear", PANDA],
        "top_n": 3,
    }


def test_a_refusal_is_told_with_its_status(gateway: str) -> None:
    Gateway.status, Gateway.body = 401, b'{"message": "no such key"}'
    with pytest.raises(AnswerError, match=r"401.*no such key") as caught:
        ask(gateway, "rk_test", "minilm")
    assert caught.value.status == 401


def test_an_answer_that_is_not_json_is_told(gateway: str) -> None:
    Gateway.status, Gateway.body = 200, b"<html>"
    with pytest.raises(AnswerError, match="no answer"):
        ask(gateway, "rk_test", "minilm")


def test_no_gateway_is_told() -> None:
    with pytest.raises(AnswerError, match="no answer"):
        ask("http://127.0.0.1:1", "rk_test", "minilm")


def test_the_example_job_asks_the_same() -> None:
    (path,) = EXAMPLES.glob("04-*.yaml")
    job = yaml.safe_load(path.read_text())
    program = job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    source = program[program.index("{") : program.index("request =")]
    asked = eval(source)  # the example's own literal
    assert asked == {**request_body("minilm"), "documents": list(DOCUMENTS)}
