"""What huggingface_hub raises, as a failure with a way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator

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


def explain(error: BaseException, *, repo: str, revision: str, hub: str, has_token: bool) -> Failure:
    """The failure that an exception of huggingface_hub means.

    Args:
        error: What was raised.
        repo: The repository asked for.
        revision: The revision asked for.
        hub: The hub's address, for the message.
        has_token: Whether a token was sent.
    """
    chain = list(_chain(error))
    if any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in chain):
        return Failure(
            Reason.DISK_FULL,
            "The disk is full: the volume for the weights has no space left.",
            retriable=True,
        )
    for known in chain:
        failure = _known(known, repo, revision, hub, has_token=has_token)
        if failure:
            return failure
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return Failure(
        Reason.HUB_UNREACHABLE,
        f"The hub {hub} cannot be reached ({what[:300]}): "
        "check spec.model.huggingFace.endpoint and what the cluster lets out.",
        retriable=True,
    )


def _known(error: BaseException, repo: str, revision: str, hub: str, *, has_token: bool) -> Failure | None:
    status = (
        error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
    )
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
    if status and status < 500 and status not in (408, 429):
        return Failure(
            Reason.INVALID_SOURCE, f"The hub {hub} refused the request for {repo} with status {status}."
        )
    if isinstance(error, EntryNotFoundError) and status == 404:
        return Failure(Reason.INVALID_SOURCE, f"A file that {repo} lists is not there.")
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


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it came from, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
