"""What a request's head must look like, decided before anything else is looked at.

The HTTP parser (httptools) refuses broken framing by itself, but lets through a missing or repeated Host,
two Authorization headers and heads of any size; those checks are here. Nothing of the head is forwarded.
"""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rerank_gateway import errors, request_ids
from rerank_gateway.errors import ApiError

MAX_HEAD_BYTES: Final = 16 * 1024

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_REQUEST_ID_BYTES: Final = 16
_HEADER_OVERHEAD: Final = 4  # ": " and the line end
_ONCE: Final = frozenset(
    (
        b"host",
        b"authorization",
        b"x-api-key",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
    )
)
_READ: Final = _ONCE | {b"expect", b"x-request-id", b"traceparent", b"tracestate"}


@dataclass(slots=True)
class Head:
    """The part of a head that the gateway acts on.

    `credential` is the key as sent, None when there is none. `content_length` is None for a chunked body
    and 0 for no body. `problem` is the answer to a head that is refused; the rest may then be incomplete.
    """

    request_id: str = ""
    credential: str | None = None
    content_type: bytes = b""
    content_encoding: bytes = b""
    content_length: int | None = 0
    expects_continue: bool = False
    traceparent: bytes = b""
    tracestate: bytes = b""
    problem: ApiError | None = None


def read(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Read a head as ASGI gives it: names in lower case, values as sent.

    Args:
        target: the request target, which counts towards the size.
        headers: in the order in which they came.
    """
    size = len(target)
    seen: dict[bytes, bytes] = {}
    repeated: bytes | None = None
    for name, value in headers:
        size += len(name) + len(value) + _HEADER_OVERHEAD
        if name in _READ:
            if name in seen:
                if name in _ONCE:
                    repeated = name
                value = b"%s,%s" % (seen[name], value)  # noqa: PLW2901 - as RFC 9110 §5.3 has it
            seen[name] = value
    request_id = seen.get(b"x-request-id", b"")
    head = Head(
        request_id=request_id.decode("ascii")
        if _REQUEST_ID.fullmatch(request_id)
        else request_ids.draw(_REQUEST_ID_BYTES),
        credential=_credential(seen),
        content_type=seen.get(b"content-type", b""),
        content_encoding=seen.get(b"content-encoding", b"").strip().lower(),
        content_length=_body_length(seen),
        expects_continue=b"expect" in seen,
        traceparent=seen.get(b"traceparent", b""),
        tracestate=seen.get(b"tracestate", b""),
    )
    if size > MAX_HEAD_BYTES:
        head.problem = too_large_head()
    elif repeated is not None:
        head.problem = errors.invalid(f"Send the header {repeated.decode('ascii')} once.")
    elif not seen.get(b"host", b"").strip():
        head.problem = errors.invalid("Send a Host header.")
    elif b"authorization" in seen and b"x-api-key" in seen:
        head.problem = errors.invalid("Send the key once: in Authorization or in X-API-Key.")
    elif seen.get(b"transfer-encoding", b"chunked").strip().lower() != b"chunked":
        head.problem = errors.invalid("Send the body plain or chunked.")
    return head


def check_json_body(head: Head, max_bytes: int) -> None:
    """Refuse a body that will not be read: wrong type, compressed, or declared too large.

    Raises:
        ApiError: 415 or 413.
    """
    media_type = head.content_type.split(b";", 1)[0].strip().lower()
    if media_type != b"application/json":
        raise errors.invalid(
            "Send the body as JSON with Content-Type: application/json.",
            status=415,
            code="unsupported_media_type",
        )
    if head.content_encoding not in (b"", b"identity"):
        raise errors.invalid(
            "Send the body without Content-Encoding: compressed bodies are not read.",
            status=415,
            code="unsupported_content_encoding",
        )
    if head.content_length is not None and head.content_length > max_bytes:
        raise too_large(max_bytes)


def too_large_head() -> ApiError:
    return errors.invalid(
        f"The request's head is larger than {MAX_HEAD_BYTES} bytes.", status=431, code="head_too_large"
    )


def too_large(max_bytes: int) -> ApiError:
    return errors.invalid(
        f"The body is larger than {max_bytes} bytes. Send the documents in several requests.",
        status=413,
        code="body_too_large",
    )


def _credential(seen: dict[bytes, bytes]) -> str | None:
    if b"x-api-key" in seen:
        return seen[b"x-api-key"].decode("latin-1").strip() or None
    scheme, _, credential = seen.get(b"authorization", b"").decode("latin-1").strip().partition(" ")
    if scheme.lower() == "basic":
        return _password(credential)
    return credential.strip() or None if scheme.lower() == "bearer" else None


def _password(encoded: str) -> str | None:
    """The password of RFC 7617's Basic scheme. What a client that takes no key sends for a URL with one:
    http://any:KEY@host.
    """
    try:
        _, _, password = base64.b64decode(encoded.strip(), validate=True).decode("latin-1").partition(":")
    except ValueError:
        return None
    return password or None


def _body_length(seen: dict[bytes, bytes]) -> int | None:
    # The HTTP parser has refused a length that is no number, and a length beside a transfer encoding.
    if b"transfer-encoding" in seen:
        return None
    return int(seen.get(b"content-length", b"0"))
