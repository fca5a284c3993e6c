"""The one shape of every error answer, and the errors by name.

`{"error": {message, type, param, code}, "message", "detail"}` is the superset that OpenAI, Cohere, Jina
and Voyage clients can all read: some look into `error`, some at `message`, some at `detail`. One is
different: voyageai before 0.5 fails on an `error` that is an object, so its requests get a string there.
"""

from typing import Final

import orjson

Headers = tuple[tuple[bytes, bytes], ...]

_NO_HEADERS: Final[Headers] = ()
_SHOWN_NAME_LENGTH: Final = 128


class ApiError(Exception):
    """An answer other than success, as the client sees it. `param` names the request's field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str,
        code: str,
        param: str | None = None,
        headers: Headers = _NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = headers

    def body(self, *, as_text: bool = False) -> bytes:
        """The JSON of the answer. `as_text`: with an `error` that is a string."""
        error: str | dict[str, str | None] = self.message
        if not as_text:
            error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error, "message": self.message, "detail": self.message})


class ClientGoneError(Exception):
    """The client closed its connection: nobody is left to answer."""


def invalid(
    message: str, *, param: str | None = None, status: int = 400, code: str = "invalid_request"
) -> ApiError:
    return ApiError(status, message, kind="invalid_request_error", code=code, param=param)


def unauthorized(message: str, *, code: str) -> ApiError:
    """401. RFC 9110 §11.6.1 wants the challenge with it."""
    challenge = b'Bearer realm="rerank"' if code == "missing_api_key" else b'Bearer error="invalid_token"'
    return ApiError(
        401,
        message,
        kind="authentication_error",
        code=code,
        headers=((b"www-authenticate", challenge),),
    )


def model_forbidden(model: str, *, entry: str) -> ApiError:
    """403. `entry` is what the APIKey's spec.models would have to list."""
    return ApiError(
        403,
        f'This API key may not call the model "{shown(model)}". '
        "GET /v1/models lists the models that it may call; the APIKey's spec.models would have to list "
        f'"{entry}".',
        kind="permission_error",
        code="model_forbidden",
        param="model",
    )


def model_not_found(model: str) -> ApiError:
    return ApiError(
        404,
        f'The model "{shown(model)}" does not exist. GET /v1/models lists the models that this key may call.',
        kind="not_found_error",
        code="model_not_found",
        param="model",
    )


def path_not_found() -> ApiError:
    return ApiError(
        404,
        "There is nothing at this path. POST /v1/rerank ranks documents; GET /docs describes every path.",
        kind="not_found_error",
        code="path_not_found",
    )


def method_not_allowed(allowed: str) -> ApiError:
    return ApiError(
        405,
        f"This path answers {allowed} only.",
        kind="invalid_request_error",
        code="method_not_allowed",
        headers=((b"allow", allowed.encode()),),
    )


def rate_limited(message: str, *, retry_after: int, headers: Headers) -> ApiError:
    """429. `retry_after` in seconds; `headers` say what is left."""
    return ApiError(
        429,
        message,
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers=((b"retry-after", b"%d" % retry_after), *headers),
    )


def unavailable(message: str, *, code: str, retry_after: int) -> ApiError:
    """503. `retry_after` in seconds: clients that retry by themselves obey it."""
    return ApiError(
        503,
        message,
        kind="overloaded_error",
        code=code,
        headers=((b"retry-after", b"%d" % retry_after),),
    )


def backend_failed(message: str) -> ApiError:
    return ApiError(502, message, kind="server_error", code="backend_error")


def deadline_exceeded(seconds: float) -> ApiError:
    return ApiError(
        504,
        f"The model did not answer within {seconds:g} seconds. "
        "Send fewer or shorter documents, or raise the model's replicas.",
        kind="timeout_error",
        code="deadline_exceeded",
    )


def internal() -> ApiError:
    return ApiError(
        500,
        "The gateway failed to handle this request; its log has the cause under the X-Request-Id.",
        kind="server_error",
        code="internal_error",
    )


def shown(text: str) -> str:
    """Text of the client's own, short enough to be quoted back."""
    return text if len(text) <= _SHOWN_NAME_LENGTH else text[:_SHOWN_NAME_LENGTH] + "…"
