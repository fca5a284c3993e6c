"""The names under which a ModelDeployment may be asked for, by namespace: which of several has a name.

The gateway resolves by these rules and the operator reports by them, so that the two never differ.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple


class Rank(IntEnum):
    """How a name is claimed, the strongest first. A namespace's own models come before all shared ones.

    QUALIFIED is `namespace/name`. It comes after a repository of the namespace's own, which looks the same:
    what another namespace is called must not change what a name means at home.
    """

    NAME = 0
    ALIAS = 1
    REPO = 2
    QUALIFIED = 3
    SHARED_NAME = 4
    SHARED_ALIAS = 5
    SHARED_REPO = 6


class Claim(NamedTuple):
    """A name as it is asked for by keys of a namespace, and how the model claims it."""

    namespace: str
    name: str
    rank: Rank


def repo_of(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    """The repository of a ModelDeployment as the API server returns it; None for a volume.

    A catalog entry's stands in the status alone; a spec that was just edited is ahead of its status.
    """
    source = spec["model"]
    hub = source.get("huggingFace") or (status.get("model") if source.get("catalog") else None) or {}
    repo = hub.get("repo")
    return None if repo is None else str(repo)


def qualified(namespace: str, name: str) -> str:
    """The name of a model that means the same in every namespace that may call it."""
    return f"{namespace}/{name}"


def claims(
    namespace: str, name: str, *, aliases: Iterable[str], repo: str | None, shared_with: Iterable[str]
) -> Iterator[Claim]:
    """All that the model `name` of `namespace` claims, each name of a namespace once."""
    own = {repo: Rank.REPO} if repo else {}
    own |= dict.fromkeys(aliases, Rank.ALIAS)
    own[name] = Rank.NAME
    full = qualified(namespace, name)
    for word, rank in {full: Rank.QUALIFIED, **own}.items():
        yield Claim(namespace, word, rank)
    for other in dict.fromkeys(shared_with):
        if other == namespace:
            continue
        shared = {word: Rank(rank + Rank.SHARED_NAME) for word, rank in own.items()}
        for word, rank in {**shared, full: Rank.QUALIFIED}.items():
            yield Claim(other, word, rank)
