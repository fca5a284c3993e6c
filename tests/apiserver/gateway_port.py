"""A gateway's internal port, as far as the operator asks: what keys used, and what models have to do."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from rerank_gateway.records import KeyRecord, ModelRecord, ObjectId
from rerank_gateway.usage import Usage
from tests.apiserver.api import Object, eventually
from tests.apiserver.operator_process import Operator

CALM: Object = {
    "queuedTokens": 0,
    "runningTokens": 0,
    "heldRequests": 0,
    "readTokens": 0,
    "tokensPerSecond": 1000.0,
    "measuredSecondsAgo": 1000.0,
    "idleSeconds": 100.0,
}


class GatewayPort:
    """The real counts of keys and the real answers; the load of each model is what the test says.

    Attributes:
        loads: what /load tells of each model, by namespace and name.
        asked: how often which path was asked for.
    """

    def __init__(self) -> None:
        self.usage = Usage("0" * 16, told_apart=1)
        self.phase = "serving"
        self.loads: dict[tuple[str, str], Object] = {}
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def restart(self) -> None:
        """As another process, which has counted nothing."""
        with self.lock:
            self.usage = Usage(f"{int(self.usage.process, 16) + 1:016x}", told_apart=1)

    def use(self, key: Object, times: int = 1) -> None:
        """Have an APIKey used."""
        metadata = key["metadata"]
        identity = ObjectId(metadata["namespace"], metadata["name"])
        caller = KeyRecord(identity, metadata["uid"], 0, "", (), None, 9e9, False)
        model = ModelRecord(ObjectId(metadata["namespace"], "bge"), 0, ("bge",), (), None, None)
        with self.lock:
            for _ in range(times):
                self.usage.record(caller, model, 200, documents=3, tokens=40, now=time.time())

    def asked_again(self, path: str) -> None:
        """Return when the operator has come by twice more: what it knew then is acted on.

        And once more than that: it may have been another task, which asks for the same once a minute.
        """
        before = self.asked[path]
        eventually("the operator asks the gateway", lambda: self.asked[path] >= before + 3)

    def _answer(self, path: str, query: dict[str, str]) -> bytes | None:
        if path == "/usage":
            return self.usage.page(query, self.phase)
        if path == "/load":
            models = [
                {"namespace": namespace, "name": name, "replicas": [], **load}
                for (namespace, name), load in self.loads.items()
            ]
            return json.dumps({"process": self.usage.process, "models": models}).encode()
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        port = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                with port.lock:
                    body = port._answer(url.path, dict(parse_qsl(url.query)))
                    port.asked[url.path] += 1
                with suppress(ConnectionError):  # the operator was killed meanwhile
                    self.send_response(404 if body is None else 200)
                    self.send_header("Content-Length", str(len(body or b"")))
                    self.end_headers()
                    self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def asked_by(operator: Operator, port: GatewayPort) -> Iterator[None]:
    """Start the operator anew, with this port as its only gateway; the others' tests start it without."""
    if operator.process is not None:
        operator.stop()
    operator.environment["RERANK_GATEWAY_PEERS"] = port.address
    operator.start()
    yield
    del operator.environment["RERANK_GATEWAY_PEERS"]
    if operator.process is not None:
        operator.stop()
    port.close()
