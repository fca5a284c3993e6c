"""What huggingface_hub raises, as a failure with a way out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rerank_runtime.failure import TOKEN_FIELD, Failure, Reason
from rerank_runtime.patience import HubError

# Exported lazily since version 2 of the client, which types do not show.
_client: Any = importlib.import_module("huggingface_hub.utils")
# The client's own HTTP library: httpx in version 1, httpx2 in version 2.
_http: Any = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])

# What reading an answer raises that is no hub's.
_NO_HUB = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
# What a request can raise.
RAISED: tuple[type[Exception], ...] = (
    _http.HTTPError,
    _http.InvalidURL,
    _http.StreamError,
    HFValidationError,
    OSError,
    *_NO_HUB,
)


def explain(error: Exception, *, repo: str, revision: str, hub: str, has_token: bool) -> HubError:
    """The failure that an exception of huggingface_hub means, and whether to try again.

    Args:
        error: What was raised.
        repo: The repository asked for.
        revision: The revision asked for.
        hub: The hub's address, for the message.
        has_token: Whether a token was sent.
    """
    chain = list(_chain(error))
    for known in chain:
        failure = _known(known, repo, revision, hub, has_token=has_token)
        if failure:
            return HubError(failure)
    if any(isinstance(link, _http.TooManyRedirects) for link in chain):
        return HubError(
            Failure(
                Reason.HUB_UNREACHABLE,
                f"The hub {hub} redirects in a circle: check spec.model.huggingFace.endpoint.",
                retriable=True,
            )
        )
    answered = next((link for link in chain if _status(link)), None)
    if answered is not None:
        return _refused_for_now(answered, hub)
    if isinstance(error, _NO_HUB) and not isinstance(error, OSError):
        return HubError(
            Failure(
                Reason.INVALID_SOURCE,
                f"{hub} does not answer as a hub does ({_named(error)}): "
                "check spec.model.huggingFace.endpoint.",
            )
        )
    return HubError(
        Failure(
            Reason.HUB_UNREACHABLE,
            f"The hub {hub} cannot be reached ({_named(error)}): "
            "check spec.model.huggingFace.endpoint and what the cluster lets out.",
            retriable=True,
        ),
        transient=True,
    )


def hold(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds for which an answer asks to be left alone, None where it does not.

    Retry-After is read in both its forms (RFC 9110, 10.2.3), the public hub's RateLimit as its client does.

    Args:
        status: The answer's.
        headers: The answer's.
        now: For a Retry-After that is a date.
    """
    if status not in (429, 503):
        return None
    told = headers.get("Retry-After", "").strip()
    # A digit of another script is one to isdigit and none to int.
    if told.isascii() and told.isdigit():
        return float(told)
    if told:
        try:
            when = parsedate_to_datetime(told)
        except ValueError:
            return None
        # A date without a zone is one in UTC, as HTTP's dates are.
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds())
    limit = _client.parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def _refused_for_now(error: BaseException, hub: str) -> HubError:
    status = _status(error)
    seconds = hold(status, _response(error).headers, datetime.now(UTC))
    asks = "" if seconds is None else f" and asks to be left alone for {seconds:.0f} s"
    if status == 429:
        failure = Failure(
            Reason.HUB_RATE_LIMITED,
            f"The hub {hub} limits the rate of requests (429){asks}: "
            f"a token in {TOKEN_FIELD} raises the limit.",
            retriable=True,
        )
    else:
        failure = Failure(
            Reason.HUB_UNREACHABLE, f"The hub {hub} answers with status {status}{asks}.", retriable=True
        )
    return HubError(failure, transient=True, hold=seconds)


def _known(error: BaseException, repo: str, revision: str, hub: str, *, has_token: bool) -> Failure | None:
    status = _status(error)
    # Ordered: a gated repository is raised as a kind of repository not found.
    if isinstance(error, GatedRepoError):
        return _gated(repo, has_token=has_token)
    if status == 401 and has_token:
        return Failure(
            Reason.TOKEN_REJECTED,
            f"The hub {hub} rejected the token: put a valid one into the Secret of {TOKEN_FIELD}.",
        )
    if isinstance(error, RepositoryNotFoundError):
        hint = "" if has_token else f" If it is private, set {TOKEN_FIELD}."
        return Failure(
            Reason.REPOSITORY_NOT_FOUND,
            f"The hub {hub} has no repository {repo} that can be seen: "
            f"check spec.model.huggingFace.repo.{hint}",
        )
    if isinstance(error, RevisionNotFoundError):
        return Failure(
            Reason.REVISION_NOT_FOUND,
            f"The repository {repo} has no revision {revision}: check spec.model.huggingFace.revision.",
        )
    if isinstance(error, DisabledRepoError):
        return Failure(Reason.REPOSITORY_NOT_FOUND, f"The hub {hub} has disabled the repository {repo}.")
    if status == 403:
        return _gated(repo, has_token=has_token)
    if isinstance(error, HFValidationError):
        return Failure(Reason.INVALID_SOURCE, f"{repo} is no valid repository name: it must be org/name.")
    if isinstance(error, EntryNotFoundError) and status == 404:
        return Failure(Reason.INVALID_SOURCE, f"A file that {repo} lists is not there.")
    if status and status < 500 and status not in (408, 429):
        return Failure(
            Reason.INVALID_SOURCE, f"The hub {hub} refused the request for {repo} with status {status}."
        )
    return None


def _gated(repo: str, *, has_token: bool) -> Failure:
    if has_token:
        message = (
            f"The repository {repo} is gated and this token has no access: accept its terms on the hub "
            f"with the token's account, or set another token in {TOKEN_FIELD}."
        )
    else:
        message = (
            f"The repository {repo} is gated: set {TOKEN_FIELD} to a token whose account has access to it."
        )
    return Failure(Reason.REPOSITORY_GATED, message)


def _status(error: BaseException) -> int:
    response = _response(error)
    return 0 if response is None else int(response.status_code)


def _response(error: BaseException) -> Any:
    # The library's own error, where the client stumbled over an error's body.
    return error.response if isinstance(error, HfHubHTTPError | _http.HTTPStatusError) else None


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it came from, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
