"""What huggingface_hub raises, as failures. What a hub can be made to answer is in test_fetch_faults."""

from __future__ import annotations

import errno
from datetime import UTC, datetime

import pytest
from httpx2 import ConnectTimeout, Request, Response, TooManyRedirects
from huggingface_hub.errors import DisabledRepoError, HfHubHTTPError, LocalEntryNotFoundError

from rerank_runtime.failure import Reason
from rerank_runtime.hub_errors import explain, hold
from rerank_runtime.patience import HubError

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def answered(
    status: int, kind: type[HfHubHTTPError] = HfHubHTTPError, headers: dict[str, str] | None = None
) -> HfHubHTTPError:
    request = Request("GET", "https://hub.test/api/models/a/b")
    return kind("refused", response=Response(status, request=request, headers=headers or {}))


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason", "retriable", "transient"),
    [
        (answered(429), Reason.HUB_RATE_LIMITED, True, True),
        (answered(408), Reason.HUB_UNREACHABLE, True, True),
        (answered(500), Reason.HUB_UNREACHABLE, True, True),
        (answered(503), Reason.HUB_UNREACHABLE, True, True),
        (answered(403), Reason.REPOSITORY_GATED, False, False),
        (answered(400), Reason.INVALID_SOURCE, False, False),
        (answered(403, DisabledRepoError), Reason.REPOSITORY_NOT_FOUND, False, False),
        (caused(LocalEntryNotFoundError("no file"), answered(403)), Reason.REPOSITORY_GATED, False, False),
        (ConnectTimeout("timed out"), Reason.HUB_UNREACHABLE, True, True),
        (TooManyRedirects("20"), Reason.HUB_UNREACHABLE, True, False),
        (TimeoutError(), Reason.HUB_UNREACHABLE, True, True),
        (FileNotFoundError(errno.ENOENT, "no such CA bundle"), Reason.HUB_UNREACHABLE, True, True),
        (KeyError("sha"), Reason.INVALID_SOURCE, False, False),
        (RecursionError("too deep"), Reason.INVALID_SOURCE, False, False),
        (caused(AttributeError("get"), answered(502)), Reason.HUB_UNREACHABLE, True, True),
    ],
)
def test_the_cause_and_whether_to_try_again(
    error: Exception, reason: Reason, *, retriable: bool, transient: bool
) -> None:
    explained = told(error)
    failure = explained.failure
    assert (failure.reason, failure.retriable, explained.transient) == (reason, retriable, transient)


def test_an_exception_without_a_message_is_named() -> None:
    assert "TimeoutError" in told(TimeoutError()).failure.message


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "120"}, 120.0),
        (503, {"Retry-After": " 7 "}, 7.0),
        (429, {"Retry-After": "Sun, 22 Nov 2026 12:01:30 GMT"}, 90.0),
        (429, {"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        (429, {"Retry-After": "Sun, 22 Nov 2026 12:01:30"}, 90.0),
        (429, {"Retry-After": "soon"}, None),
        (429, {"Retry-After": "-5"}, None),
        (429, {"Retry-After": "٣"}, None),
        (429, {"RateLimit": '"api";r=0;t=55'}, 55.0),
        (429, {"RateLimit": '"api";r=3;t=55'}, None),
        (429, {}, None),
        (500, {"Retry-After": "120"}, None),
    ],
)
def test_how_long_a_hub_asks_to_be_left_alone(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    assert hold(status, headers, NOW) == seconds


def test_an_answer_that_asks_for_time_is_told_with_it() -> None:
    explained = told(answered(429, headers={"Retry-After": "120"}))
    assert explained.hold == 120.0
    assert "asks to be left alone for 120 s" in explained.failure.message


def told(error: Exception) -> HubError:
    return explain(error, repo="a/b", revision="main", hub="https://hub.test", has_token=False)
