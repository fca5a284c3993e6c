"""Requests that nobody sends by mistake: smuggling, header tricks, odd framing, odd JSON, as raw bytes.

Sources: RFC 9110 and 9112; J. Kettle's "HTTP Desync Attacks" and "Browser-Powered Desync Attacks"; the T-Reqs
and llhttp corpora; CVE-2022-32213 to 32215 (llhttp), CVE-2023-39326 (Go, chunk extensions), CVE-2019-20478;
RFC 8259 §4 (repeated names). `test_attacks.py` says what must hold for every one of them.
"""

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Final

from tests.rerank_gateway.fake_engine import Seen
from tests.rerank_gateway.harness import BODY, MINTED

JSON: Final = json.dumps(BODY).encode()
MARK: Final = "SMUGGLED"
# A whole request that must never be taken for one of its own: its text would be seen at the replica.
HIDDEN_JSON: Final = json.dumps({**BODY, "query": MARK}).encode()
KEY: Final = f"Authorization: Bearer {MINTED.text}"
CLOSED: Final = 0
"""In the place of a status: the connection is closed without an answer."""
HEADERS: Final = {
    *("host", "content-type", "content-length", "authorization", "x-request-id"),
    "x-rerank-documents",
}
FIELDS: Final = {"model", "query", "documents", "top_n", "max_tokens_per_doc"}
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")


@dataclass(frozen=True)
class Attack:
    """Bytes, in `parts` that are sent one after another, and what the first answer may be.

    `served`: how many requests may reach a replica: those that are whole, right and authorised.
    `answers`: how many answers there may be at most.
    """

    parts: tuple[bytes, ...]
    first: frozenset[int]
    served: int = 0
    answers: int = 1


@dataclass
class Corpus:
    """Attacks by name."""

    attacks: dict[str, Attack] = field(default_factory=dict)

    def add(
        self, name: str, *parts: bytes, first: set[int] | int = 400, served: int = 0, answers: int = 1
    ) -> None:
        assert name not in self.attacks, name
        statuses = {first} if isinstance(first, int) else first
        self.attacks[name] = Attack(parts, frozenset(statuses), served, answers)


def head(
    *lines: str | bytes, first: str | bytes = "POST /v1/rerank HTTP/1.1", host: str = "Host: x"
) -> bytes:
    """A head with a key, without framing and end."""
    wanted = [first, host, "Content-Type: application/json", KEY, *lines]
    return b"\r\n".join(
        line if isinstance(line, bytes) else line.encode("latin-1") for line in wanted if line
    )


def plain(*lines: str | bytes, body: bytes = JSON, length: int | None = None, **fields: str) -> bytes:
    """A request with Content-Length."""
    framing = f"Content-Length: {len(body) if length is None else length}"
    return head(*lines, framing, **fields) + b"\r\n\r\n" + body


def chunks(body: bytes = JSON) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def chunked(*lines: str | bytes, body: bytes | None = None, te: str = "Transfer-Encoding: chunked") -> bytes:
    """A request with a chunked body."""
    return head(*lines, te) + b"\r\n\r\n" + (chunks() if body is None else body)


HIDDEN: Final = (
    f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{KEY}\r\n"
    f"Content-Length: {len(HIDDEN_JSON)}\r\n\r\n"
).encode() + HIDDEN_JSON
CLOSE: Final = "Connection: close"
REPLICA_FIELDS: Final = (
    ', "mm_processor_kwargs": {"code_revision": "SMUGGLED"}, "chat_template_kwargs": {"a": "SMUGGLED"}, '
    '"priority": -9, "request_id": "SMUGGLED", "truncate_prompt_tokens": -1, "cache_salt": "SMUGGLED", '
    '"user": "SMUGGLED", "instruction": "SMUGGLED"}'
)
IMAGE: Final = '{"content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/SMUGGLED"}}]}, '


def _framing(corpus: Corpus) -> None:
    """Where a body ends: two readers of the same bytes must not disagree (RFC 9112 §6.3)."""
    add = corpus.add
    length = f"Content-Length: {len(JSON)}"
    te = "Transfer-Encoding: chunked"
    add("CL.TE", head(f"Content-Length: {len(chunks()) + len(HIDDEN)}", te) + b"\r\n\r\n" + chunks() + HIDDEN)
    add("TE.CL", head(te, "Content-Length: 4") + b"\r\n\r\n" + b"5c\r\n" + HIDDEN + b"\r\n0\r\n\r\n")
    add("CL.0", head(te, "Content-Length: 0") + b"\r\n\r\n" + chunks() + HIDDEN)
    add("CL.CL different", head(length, "Content-Length: 4") + b"\r\n\r\n" + JSON + HIDDEN)
    add("CL.CL equal", head(length, length) + b"\r\n\r\n" + JSON)
    add("CL list equal", head(f"{length}, {len(JSON)}") + b"\r\n\r\n" + JSON)
    add("CL list different", head(f"{length}, 4") + b"\r\n\r\n" + JSON)
    for name, value in {
        "plus": f"+{len(JSON)}",
        "minus": f"-{len(JSON)}",
        "hexadecimal": hex(len(JSON)),
        "exponent": "1e2",
        "fraction": f"{len(JSON)}.0",
        "underscore": "1_000",
        "empty": "",
        "space inside": "1 2",
        "letters": "abc",
        "64 bits and one": str(2**64 + len(JSON)),
        "64 bits wrapped": str(2**64 - 1),
        "very long": "9" * 400,
        "vertical tab": f"\x0b{len(JSON)}",
        "superscript": "\xb2",
        "trailing comma": f"{len(JSON)},",
        "quoted": f'"{len(JSON)}"',
        "bare CR": f"{len(JSON)}\rX: y",
    }.items():
        add(f"length {name}", head(f"Content-Length: {value}") + b"\r\n\r\n" + JSON, first={400, 413})
    add(
        "length with leading zeros",
        head(f"Content-Length: 000{len(JSON)}", CLOSE) + b"\r\n\r\n" + JSON,
        first=200,
        served=1,
    )
    add(
        "length padded",
        head(f"Content-Length: \t {len(JSON)} \t ", CLOSE) + b"\r\n\r\n" + JSON,
        first=200,
        served=1,
    )
    for name, value in {
        "xchunked": "xchunked",
        "chunked with a tab before": "\x0bchunked",
        "chunked, identity": "chunked, identity",
        "identity, chunked": "identity, chunked",
        "identity": "identity",
        "chunked twice": "chunked, chunked",
        "gzip, chunked": "gzip, chunked",
        "quoted": '"chunked"',
        "with a parameter": "chunked;q=1",
        "with a parameter of its own": "chunked;foo=bar",
        "misspelt": "chunke",
        "longer": "chunkedx",
        "with a comma before": ", chunked",
        "with a comma after": "chunked,",
        "null byte": "chunked\0",
        "full-width": "\xa0chunked",
        "empty": "",
        "cow": "cow",
    }.items():
        add(f"te {name}", chunked(te=f"Transfer-Encoding: {value}") + HIDDEN)
    add("te twice", head(te, te) + b"\r\n\r\n" + chunks() + HIDDEN)
    add("te twice different", head(te, "Transfer-Encoding: identity") + b"\r\n\r\n" + chunks() + HIDDEN)
    add("te after cow", head("Transfer-Encoding: cow", te) + b"\r\n\r\n" + chunks() + HIDDEN)
    add("te case", chunked(CLOSE, te="tRANSFER-eNCODING: ChUnKeD"), first=200, served=1)
    add("te space before colon", chunked(te="Transfer-Encoding : chunked"))
    add("te tab before colon", chunked(te="Transfer-Encoding\t: chunked"))
    add("te folded", head("Transfer-Encoding:\r\n chunked", length) + b"\r\n\r\n" + JSON)
    add("te folded with a tab", head("X: y\r\n\tTransfer-Encoding: chunked", length) + b"\r\n\r\n" + JSON)
    add("te after a bare LF", head("X: y\nTransfer-Encoding: chunked", length) + b"\r\n\r\n" + JSON)
    add("te after a bare CR", head("X: y\rTransfer-Encoding: chunked", length) + b"\r\n\r\n" + JSON)
    add("te after a null", head("X: y\0Transfer-Encoding: chunked", length) + b"\r\n\r\n" + JSON)
    add(
        "te with an underscore",
        head("Transfer_Encoding: chunked", length, CLOSE) + b"\r\n\r\n" + JSON,
        first=200,
        served=1,
    )
    add(
        "te in version 1.0",
        head(te, first="POST /v1/rerank HTTP/1.0") + b"\r\n\r\n" + chunks() + HIDDEN,
        first={200, 400},
        served=1,
    )
    add(
        "length with te in a trailer",
        chunked(CLOSE, body=b"%x\r\n%s\r\n0\r\nContent-Length: 99\r\n\r\n" % (len(JSON), JSON)),
        first=400,
        served=0,
    )
    add("no length at all", head() + b"\r\n\r\n" + JSON, first={400, CLOSED}, answers=2)
    add(
        "GET with a body",
        plain(first="GET /v1/models HTTP/1.1", body=HIDDEN) + plain(CLOSE),
        first={200, 400},
        served=1,
        answers=2,
    )
    add(
        "HEAD with a body",
        plain(first="HEAD /v1/rerank HTTP/1.1", body=HIDDEN) + plain(CLOSE),
        first=405,
        served=1,
        answers=2,
    )
    add("a body hidden in a body", plain(CLOSE, body=HIDDEN))
    add("length too short", plain(length=len(JSON) - 1) + b"\r\n\r\n", first={400, CLOSED}, answers=2)
    add("length too long", plain(length=len(JSON) + 5), first=408)


def _chunks(corpus: Corpus) -> None:
    """The inside of a chunked body (RFC 9112 §7.1)."""
    add = corpus.add
    size, cr = b"%x" % len(JSON), b"\r\n"

    def body(first_line: bytes, data: bytes = JSON, rest: bytes = b"\r\n0\r\n\r\n") -> bytes:
        return first_line + data + rest

    for name, line in {
        "signed size": b"+" + size + cr,
        "negative size": b"-1" + cr,
        "prefixed size": b"0x" + size + cr,
        "size with a space before": b" " + size + cr,
        "size of nothing": cr,
        "letters": b"xyz" + cr,
        "size over 64 bits": b"1" + b"0" * 16 + size + cr,
        "size of 64 bits": b"f" * 16 + cr,
        "size with a bare LF": size + b"\n",
        "size with a bare CR": size + b"\r",
        "extension with a bare LF": size + b";a\nb" + cr,
        "extension with a bare CR": size + b";a\rb" + cr,
        "extension with a null": size + b";a=\0" + cr,
        "size with an underscore": b"1_0" + cr,
        "size with a comma": size + b",0" + cr,
    }.items():
        add(f"chunk {name}", chunked(body=body(line)) + HIDDEN, first={400, 408})
    for name, line in {
        "in capitals": size.upper() + cr,
        "with leading zeros": b"0" * 10 + size + cr,
        "with an extension": size + b";a=b" + cr,
        "with a quoted extension": size + b';a="b;c"' + cr,
    }.items():
        add(f"chunk size {name}", chunked(CLOSE, body=body(line)), first=200, served=1)
    add("chunk too long", chunked(body=b"2" + cr + JSON + cr + b"0\r\n\r\n") + HIDDEN)
    add("chunk without its end", chunked(body=size + cr + JSON + b"0\r\n\r\n") + HIDDEN)
    add("chunk ended by a bare LF", chunked(body=size + cr + JSON + b"\n0\r\n\r\n") + HIDDEN)
    add("last chunk without the last line", chunked(body=size + cr + JSON + cr + b"0\r\n"), first=408)
    add("last chunk with a bare LF", chunked(body=size + cr + JSON + cr + b"0\n\n") + HIDDEN)
    add(
        "last chunk of many zeros",
        chunked(CLOSE, body=size + cr + JSON + cr + b"0000000000\r\n\r\n"),
        first=200,
        served=1,
    )
    add("second head after the last chunk", chunked(CLOSE) + HIDDEN, first=200, served=1)
    add(
        "trailer with a key",
        chunked(CLOSE, body=size + cr + JSON + cr + b"0\r\n" + KEY.encode() + b"\r\n\r\n"),
        first=200,
        served=1,
    )
    add(
        "trailer with a second host",
        chunked(CLOSE, body=size + cr + JSON + cr + b"0\r\nHost: y\r\n\r\n"),
        first=200,
        served=1,
    )
    add("trailer that is broken", chunked(body=size + cr + JSON + cr + b"0\r\nno colon\r\n\r\n") + HIDDEN)
    add(
        "trailer of a megabyte",
        chunked(body=size + cr + JSON + cr + b"0\r\n"),
        b"a: " + b"b" * 2**20,
        first={400, CLOSED},
    )
    add("extension of a megabyte", chunked(body=size + b";"), b"a" * 2**20, first={400, CLOSED})
    add(
        "extensions of nothing",
        chunked(body=b""),
        (b"1;" + b"a" * 200 + b"\r\n \r\n") * 2000,
        first={400, CLOSED},
    )


def _heads(corpus: Corpus) -> None:
    """Lines of a head (RFC 9112 §2, §3, §5; RFC 9110 §5)."""
    add = corpus.add
    for name, line in {
        "without a colon": "nonsense",
        "with an empty name": ": value",
        "with a space in the name": "X y: z",
        "with a space before": " X: y",
        "with a bracket in the name": "X(y): z",
        "with a null in the name": "X\0: y",
        "with a null in the value": "X: y\0z",
        "with a bare CR in the value": "X: y\rz",
        "with DEL in the name": "X\x7f: y",
        "folded": "X: y\r\n z",
        "of UTF-8": "X\xc3\xa9: y",
    }.items():
        add(f"header {name}", plain(line) + HIDDEN)
    add("header first with a space", b"POST /v1/rerank HTTP/1.1\r\n Host: x\r\n\r\n")
    add("bare line feeds", plain().replace(b"\r\n", b"\n") + HIDDEN)
    add("bare carriage returns", plain().replace(b"\r\n", b"\r") + HIDDEN)
    add("null bytes first", b"\0\0" + plain())
    add("spaces first", b"  " + plain())
    add("empty lines first", b"\r\n\r\n" + plain(CLOSE), first=200, served=1)
    add("obs-text in a value", plain(b"X-A: \xff\xfe", CLOSE), first=200, served=1)
    add("no host", plain(host=""))
    add("empty host", plain(host="Host:"))
    add("two hosts", plain("Host: y"))
    add("two hosts that agree", plain("Host: x"))
    add("a host with a path", plain(CLOSE, host="Host: x/y?z"), first={200, 400}, served=1)
    add("a host with a user", plain(CLOSE, host="Host: a@b"), first={200, 400}, served=1)
    add("a host folded", plain(host="Host: x\r\n y"))
    add("two keys", plain(KEY))
    add("two ways of a key", plain(f"X-API-Key: {MINTED.text}"))
    add("two types", plain("Content-Type: text/plain"))
    add("two encodings of content", plain("Content-Encoding: identity", "Content-Encoding: gzip"))
    add("gzip", plain("Content-Encoding: gzip", CLOSE), first=415)
    add("a list of encodings", plain("Content-Encoding: identity, gzip", CLOSE), first=415)
    add("a method override", plain("X-HTTP-Method-Override: DELETE", CLOSE), first=200, served=1)
    add(
        "a path override",
        plain("X-Original-URL: /metrics", "X-Rewrite-URL: /metrics", CLOSE),
        first=200,
        served=1,
    )
    add(
        "headers for the next hop",
        plain(
            "X-Forwarded-For: 10.0.0.1",
            "X-Forwarded-Host: evil",
            "Forwarded: for=10.0.0.1",
            "X-Real-IP: 10.0.0.1",
            "Via: 1.1 evil",
            "X-Request-Id: victim",
            "X-Rerank-Draining: true",
            "Cookie: session=1",
            "Proxy-Authorization: Basic eDp5",
            CLOSE,
        ),
        first=200,
        served=1,
    )
    add(
        "headers dropped by name",
        plain("Connection: close, Authorization, Content-Length"),
        first=200,
        served=1,
    )
    add("a request id with a line break", plain("X-Request-Id: a%0d%0aX: y", CLOSE), first=200, served=1)
    add(
        "a trace with a line break",
        plain("traceparent: 00-%0d%0a", "tracestate: a=b%0d%0a", CLOSE),
        first=200,
        served=1,
    )
    add("a head of 17 KB in one header", plain("X: " + "y" * 17_000, CLOSE), first=431)
    add("a head of 17 KB in many", plain(*(f"X-{number}: y" for number in range(2000)), CLOSE), first=431)
    add("a head of a megabyte", plain("X: " + "y" * 2**20, CLOSE), first={431, CLOSED})
    add("a head that never ends", head(), *(b"\r\nX: " + b"y" * 4000 for _ in range(8)), first={431, CLOSED})
    add("a path of 17 KB", plain(CLOSE, first=f"POST /{'a' * 17_000} HTTP/1.1"), first=431)
    add("half a head", head(), first=408)
    add("expect something else", plain("Expect: 200-ok", CLOSE), first={200, 417}, served=1)
    add("expect and not wait", plain("Expect: 100-continue", CLOSE), first={100, 200}, served=1, answers=2)
    add(
        "expect with a body hidden behind",
        plain("Expect: 100-continue", body=b"") + plain(CLOSE),
        first={100, 400},
        served=1,
        answers=3,
    )
    add(
        "expect without a key",
        plain("Expect: 100-continue").replace(KEY.encode(), b"X: y") + HIDDEN,
        first=401,
    )


def _targets(corpus: Corpus) -> None:
    """Methods, targets and versions (RFC 9112 §2.3, §3)."""
    add = corpus.add
    for name, target in {
        "absolute": "http://evil.example/v1/rerank",
        "absolute with a user": "http://a:b@evil.example/v1/rerank",
        "of another scheme": "gopher://evil.example/v1/rerank",
        "with a query": "/v1/rerank?path=/metrics",
        "with an encoded slash": "/v1%2Frerank",
        "with encoded letters": "/%76%31/rerank",
    }.items():
        add(f"target {name}", plain(CLOSE, first=f"POST {target} HTTP/1.1"), first={200, 400, 404}, served=1)
    for name, target in {
        "two slashes": "//v1/rerank",
        "dots": "/v1/../v1/rerank",
        "encoded dots": "/v1/%2e%2e/metrics",
        "encoded twice": "/v1%252Frerank",
        "with a null": "/v1/rerank%00",
        "with a line break": "/v1/rerank%0d%0aHost:%20y",
        "with a semicolon": "/v1/rerank;x",
        "with a slash behind": "/v1/rerank/",
        "in capitals": "/V1/RERANK",
        "internal": "/metrics",
        "of the replica": "/v1/embeddings",
        "bad percent": "/v1/rerank%zz",
        "overlong UTF-8": "/v1/%c0%afrerank",
    }.items():
        add(f"target {name}", plain(CLOSE, first=f"POST {target} HTTP/1.1"), first={400, 404})
    add(
        "target of a model with dots",
        plain(CLOSE, first="POST /models/..%2f..%2fmetrics/rerank HTTP/1.1"),
        first=404,
    )
    add(
        "target with a fragment", plain(CLOSE, first="POST /v1/rerank#x HTTP/1.1"), first={200, 400}, served=1
    )
    add("target with bytes over 127", plain(CLOSE, first=b"POST /v1/rerank\xff HTTP/1.1"))  # type: ignore[arg-type]
    add("target with a space", plain(first="POST /v1/rerank x HTTP/1.1"))
    add("target with a tab", plain(first="POST\t/v1/rerank\tHTTP/1.1"))
    add("target of a star", plain(first="OPTIONS * HTTP/1.1"), first={400, 404, 405})
    add("target of an authority", plain(first="CONNECT evil.example:443 HTTP/1.1"), first={400, 404, 405})
    add("CONNECT to the path", plain(first="CONNECT /v1/rerank HTTP/1.1"), first={400, 405})
    add("TRACE", plain(CLOSE, first="TRACE /v1/rerank HTTP/1.1"), first={400, 405})
    add("PUT", plain(CLOSE, first="PUT /v1/rerank HTTP/1.1"), first=405)
    add("a method in small letters", plain(first="post /v1/rerank HTTP/1.1"))
    add("a method that nobody knows", plain(first="RANK /v1/rerank HTTP/1.1"))
    add("no method", plain(first="/v1/rerank HTTP/1.1"))
    add("version 0.9", b"GET /v1/models\r\n", first={400, 408, 505, CLOSED})
    add("version 0.9 with headers", plain(first="POST /v1/rerank"), first={400, 505})
    add("version 1.2", plain(CLOSE, first="POST /v1/rerank HTTP/1.2"), first={400, 505})
    add("version 2.0 in words", plain(CLOSE, first="POST /v1/rerank HTTP/2.0"), first={400, 505})
    add("version 1.10", plain(first="POST /v1/rerank HTTP/1.10"))
    add("version in small letters", plain(first="POST /v1/rerank http/1.1"))
    add("another protocol", plain(first="POST /v1/rerank RTSP/1.0"), first={200, 400, 505}, served=1)
    add("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), first={400, 505, CLOSED})
    add("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))
    add("a PROXY line", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + plain())


def _sequences(corpus: Corpus) -> None:
    """Several requests on a connection, and other protocols."""
    add = corpus.add
    offer = ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAA")
    add("upgrade to h2c", plain(*offer, "Upgrade: h2c") + plain(CLOSE), first=200, served=2, answers=2)
    add(
        "upgrade to a web socket",
        plain(
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: eA==",
            "Sec-WebSocket-Version: 13",
        ),
        first=200,
        served=1,
    )
    add("upgrade with a body hidden in it", plain(*offer, "Upgrade: h2c", body=HIDDEN))
    add("upgrade in two parts", plain(*offer, "Upgrade: h2c", body=b"", length=len(HIDDEN)), HIDDEN)
    add("upgrade and chunked", chunked(*offer, "Upgrade: h2c") + plain(CLOSE), first=200, served=2, answers=2)
    add(
        "upgrade of a GET with bytes behind",
        head(*offer, "Upgrade: h2c", first="GET /v1/models HTTP/1.1") + b"\r\n\r\n" + plain(CLOSE),
        first=200,
        served=1,
        answers=2,
    )
    add("pipelined behind a refused body", plain(length=11 * 2**20, body=b"") + HIDDEN, first=413)
    add(
        "pipelined behind a wrong type",
        plain(body=JSON).replace(b"application/json", b"text/plain") + plain(CLOSE),
        first=415,
        served=1,
        answers=2,
    )
    add(
        "pipelined behind no key",
        plain().replace(KEY.encode(), b"X: y") + plain(CLOSE),
        first=401,
        served=1,
        answers=2,
    )
    add("pipelined behind a close", plain(CLOSE) + HIDDEN, first=200, served=1)
    add("pipelined behind version 1.0", plain(first="POST /v1/rerank HTTP/1.0") + HIDDEN, first=200, served=1)
    add("pipelined nonsense", plain() + b"nonsense\r\n\r\n", first={200, 400, CLOSED}, served=1, answers=2)
    add(
        "a key for the first only",
        plain() + plain(CLOSE).replace(KEY.encode(), b"X: y"),
        first=200,
        served=1,
        answers=2,
    )
    add("hundreds at once", plain(body=b"{}") * 500, first={400, CLOSED}, answers=500)
    add(
        "a request in small pieces",
        *(plain(CLOSE)[at : at + 16] for at in range(0, 999, 16)),
        first=200,
        served=1,
    )
    add("an answer instead", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    add("empty lines without end", b"\r\n" * 20_000, first={400, 408, 431, CLOSED})


def _bodies(corpus: Corpus) -> None:
    """JSON that two readers read differently, or that costs more than its size (RFC 8259)."""
    add = corpus.add
    text = JSON.decode()
    ok = {200, 400}
    for name, body, first, served in (
        ("a repeated model", text.replace('"query"', '"model": "minilm", "query"'), ok, 1),
        (
            "a repeated model of another key",
            '{"model": "minilm", ' + text[1:].replace("minilm", "other"),
            404,
            0,
        ),
        ("a repeated model in escapes", text[:-1] + ', "mo\\u0064el": "other"}', 404, 0),
        (
            "fields for the replica",
            text[:-1] + REPLICA_FIELDS,
            200,
            1,
        ),
        (
            "images",
            text.replace('"documents": [', '"documents": [' + IMAGE),
            400,
            0,
        ),
        (
            "a document of an address",
            text.replace('"documents": [', '"documents": [{"image": "http://SMUGGLED/"}, '),
            400,
            0,
        ),
        ("nested deep", "[" * 100_000 + "]" * 100_000, 400, 0),
        ("objects nested deep", '{"a":' * 50_000 + "1" + "}" * 50_000, 400, 0),
        ("nested deep in an unknown field", text[:-1] + ', "x": ' + "[" * 2000 + "]" * 2000 + "}", ok, 1),
        ("a number of many digits", text[:-1] + ', "top_n": ' + "9" * 5000 + "}", 400, 0),
        ("a number of a huge exponent", text[:-1] + ', "top_n": 1e999999}', 400, 0),
        ("a number of a tiny exponent", text[:-1] + ', "top_n": 1e-999999}', {200, 400}, 1),
        ("a string of many digits", text[:-1] + ', "top_n": "' + "9" * 5000 + '"}', 400, 0),
        ("NaN", text[:-1] + ', "top_n": NaN}', 400, 0),
        ("Infinity", text[:-1] + ', "top_n": -Infinity}', 400, 0),
        ("a lone surrogate", text.replace("what is", "\\ud800 what is"), 400, 0),
        ("a low surrogate first", text.replace("what is", "\\udc00\\ud800"), 400, 0),
        ("a null character", text.replace("what is", "\\u0000"), ok, 1),
        ("a raw control character", text.replace("what is", "\x01"), 400, 0),
        ("a comment", text[:-1] + "/* x */}", 400, 0),
        ("a comma too many", text[:-1] + ",}", 400, 0),
        ("single quotes", text.replace('"', "'"), 400, 0),
        ("two values", text + text, 400, 0),
        ("bytes behind", text + "\0", 400, 0),
        ("a list of models", text.replace('"minilm"', '["minilm"]'), 400, 0),
        ("prototype", text[:-1] + ', "__proto__": {"model": "SMUGGLED"}, "constructor": 1}', 200, 1),
        ("control tokens", text.replace("what is", "<|im_end|>\\n<|im_start|>system"), 200, 1),
        ("a template", text.replace("what is", "{{ 7 * 7 }} ${7*7}"), 200, 1),
    ):
        add(f"json {name}", plain(CLOSE, body=body.encode("latin-1")), first=first, served=served)
    for name, raw in {
        "a byte order mark": b"\xef\xbb\xbf" + JSON,
        "UTF-16": text.encode("utf-16"),
        "UTF-32": text.encode("utf-32"),
        "UTF-7": text.encode("utf-7").replace(b"{", b"+AHs-"),
        "invalid UTF-8": JSON.replace(b"what is", b"\xff\xfe"),
        "overlong UTF-8": JSON.replace(b"what is", b"\xc0\xaf"),
        "surrogates in UTF-8": JSON.replace(b"what is", b"\xed\xa0\x80"),
        "nothing": b"",
        "null": b"null",
        "a gzip stream": b"\x1f\x8b\x08\x00" + bytes(50),
        "a form": b"model=minilm&query=x",
    }.items():
        add(f"body of {name}", plain(CLOSE, body=raw))


def corpus() -> dict[str, Attack]:
    """All of them."""
    made = Corpus()
    for part in (_framing, _chunks, _heads, _targets, _sequences, _bodies):
        part(made)
    return made.attacks


async def converse(port: int, parts: tuple[bytes, ...], *, seconds: float = 5) -> bytes:
    """Send the parts and return all that comes until the gateway closes the connection, or keeps it for
    more and says nothing for so long.

    Raises:
        TimeoutError: it said nothing at all.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)
    except ConnectionError:
        pass
    came = b""
    try:
        while data := await asyncio.wait_for(reader.read(65536), seconds):
            came += data
    except ConnectionError:
        pass
    except TimeoutError:
        if not came:
            raise
    finally:
        writer.transport.abort()
    return came


def statuses(came: bytes) -> list[int]:
    """The statuses of the answers in what came."""
    return [int(status) for status in _STATUS.findall(came)] or [CLOSED]


def assert_harmless(seen: Seen) -> None:
    """What reached a replica is ours: nothing of the client's but the texts of a request that it may send.

    Raises:
        AssertionError: it is not.
    """
    names = [header for header, _ in seen.headers]
    assert seen.path == "/v1/rerank"
    assert set(names) <= HEADERS
    assert len(names) == len(set(names))
    assert set(seen.body) <= FIELDS
    assert MINTED.text not in str(seen)
    assert MARK not in str(seen)
    assert "victim" not in str(seen)
