"""Plain HTTP requests that keep the whole answer, whatever its status."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JSON_BODY = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:500]!r}"


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def send(
    address: Address,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    seconds: float = 60,
) -> Answer:
    """Send one request on a connection of its own.

    Raises:
        OSError, http.client.HTTPException: no whole answer came back.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=seconds)
    try:
        return send_on(connection, method, path, headers=headers, body=body)
    finally:
        connection.close()


def send_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """Send one request on a connection that is kept."""
    connection.request(method, path, body=body, headers=dict(headers or {}))
    return _read(connection.getresponse())


def send_until_refused(address: Address, head: str, pieces: list[bytes], *, seconds: float = 30) -> Answer:
    """Send a body piece by piece and read the answer even where it comes before the body's end.

    Args:
        address: the server.
        head: request line and headers, without the blank line.
        pieces: what follows, as it goes on the wire.
        seconds: the time for each step.
    """
    with socket.create_connection((address.host, address.port), timeout=seconds) as raw:
        raw.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        try:
            for piece in pieces:
                raw.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has answered and closed: its answer is still to be read
        response = http.client.HTTPResponse(raw, method="POST")
        try:
            response.begin()
            return _read(response)
        finally:
            response.close()


def _read(response: http.client.HTTPResponse) -> Answer:
    body = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
