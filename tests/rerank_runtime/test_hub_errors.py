"""What huggingface_hub raises, as failures. What a hub can be made to answer is in test_fetch."""

from __future__ import annotations

import errno

import pytest
from httpx2 import ConnectTimeout, Request, Response
from huggingface_hub.errors import DisabledRepoError, HfHubHTTPError, LocalEntryNotFoundError

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.hub_errors import explain


def answered(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    return kind(
        "refused", response=Response(status, request=Request("GET", "https://hub.test/api/models/a/b"))
    )


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason", "retriable"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Reason.DISK_FULL, True),
        (caused(RuntimeError("x"), OSError(errno.EDQUOT, "Disk quota exceeded")), Reason.DISK_FULL, True),
        (answered(429), Reason.HUB_UNREACHABLE, True),
        (answered(408), Reason.HUB_UNREACHABLE, True),
        (answered(500), Reason.HUB_UNREACHABLE, True),
        (answered(503), Reason.HUB_UNREACHABLE, True),
        (answered(403), Reason.REPOSITORY_GATED, False),
        (answered(400), Reason.INVALID_SOURCE, False),
        (answered(403, DisabledRepoError), Reason.REPOSITORY_NOT_FOUND, False),
        (caused(LocalEntryNotFoundError("no file"), answered(403)), Reason.REPOSITORY_GATED, False),
        (ConnectTimeout("timed out"), Reason.HUB_UNREACHABLE, True),
        (TimeoutError(), Reason.HUB_UNREACHABLE, True),
    ],
)
def test_the_cause_and_whether_to_try_again(error: BaseException, reason: Reason, *, retriable: bool) -> None:
    failure = told(error)
    assert (failure.reason, failure.retriable) == (reason, retriable)


def test_an_exception_without_a_message_is_named() -> None:
    assert "TimeoutError" in told(TimeoutError()).message


def told(error: BaseException) -> Failure:
    return explain(error, repo="a/b", revision="main", hub="https://hub.test", has_token=False)
