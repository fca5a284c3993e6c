"""What each key used of each model: counts that only grow, from the start of the process to its end.

The operator asks for them on the internal port (`/usage`) and adds them up in APIKey.status: the gateway
writes nothing. What is counted is what was answered: requests with status 200, their documents, and the
tokens that the answer's own `usage` says; refused is what got a 429.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from rerank_api.api_key import LISTED_MODELS, OTHER_MODELS
from rerank_gateway.records import KeyRecord, ModelRecord

# Of one answer, in counts by model: some milliseconds. The rest follows when it is asked for.
PAGE_ROWS: Final = 500
# A deleted key's counts are kept so long: a list that lacked the key by mistake resets nothing.
KEPT_SECONDS: Final = 600.0

_Identity = tuple[str, str, str]


@dataclass(slots=True)
class Counts:
    """Answered requests, their documents and tokens, and refused requests."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    rejected: int = 0


@dataclass(slots=True)
class KeyUsage:
    """One APIKey. `models` by name, as seen from the key's namespace; `last_used` in Unix seconds.

    `told_apart`: has metrics of its own.
    """

    key: KeyRecord
    told_apart: bool
    last_used: float = 0.0
    version: int = 0
    models: dict[str, Counts] = field(default_factory=dict)
    missing_since: float | None = None


class Usage:
    """The counts of one process.

    Args:
        process: its random name.
        told_apart: so many keys, the first that are used, have metrics of their own.
    """

    def __init__(self, process: str, *, told_apart: int) -> None:
        self.process = process
        self._left_to_tell_apart = told_apart
        self._version = 0
        self._saved = 0
        self._settled = asyncio.Event()
        # The one that changed last at the end.
        self._keys: OrderedDict[_Identity, KeyUsage] = OrderedDict()
        # All keys without metrics of their own, deleted ones included.
        self.others = Counts()

    def record(
        self,
        key: KeyRecord,
        model: ModelRecord | None,
        status: int,
        *,
        documents: int,
        tokens: int,
        now: float,
    ) -> None:
        """Count one request that had a valid key, answered with `status`."""
        identity = (*key.id, key.uid)
        found = self._keys.get(identity)
        if found is None:
            found = self._keys[identity] = KeyUsage(key, told_apart=self._left_to_tell_apart > 0)
            self._left_to_tell_apart -= found.told_apart
        else:
            self._keys.move_to_end(identity)
        self._version += 1
        found.key, found.version, found.last_used, found.missing_since = key, self._version, now, None
        if status == 200 and model is not None:
            for counts in self._counts(found, model):
                counts.requests += 1
                counts.documents += documents
                counts.tokens += tokens
        elif status == 429:
            for counts in self._counts(found, model):
                counts.rejected += 1

    def page(self, query: Mapping[str, str], phase: str) -> bytes:
        """The answer to `GET /usage`, as JSON.

        `{"process", "phase", "version", "more", "keys": [{"namespace", "name", "uid", "lastUsed", "models":
        [{"name", "requests", "documents", "tokens", "rejected"}]}]}`: the keys that changed after version
        `since`, the oldest change first; where `more` is true, ask again since `version`. All counts are
        since the start of the process.

        Args:
            query: `process` names whom `since` and `saved` are about, so that they are not taken for another
                process's. `saved`: everything up to this version is safe; a process that has counted its
                last waits for it.
            phase: "serving", "draining" (stops soon) or "stopped" (counts no more).
        """
        since = 0
        if query.get("process") == self.process:
            since = _whole(query.get("since"))
            self._save(min(_whole(query.get("saved")), self._version))
        keys: list[dict[str, Any]] = []
        rows, version, more = 0, self._version, False
        for key in self._changed(since):
            rows += max(len(key.models), 1)
            if keys and rows > PAGE_ROWS:
                more = True
                break
            keys.append(_as_json(key))
            version = key.version
        return orjson.dumps(
            {
                "process": self.process,
                "phase": phase,
                "version": version if more else self._version,
                "more": more,
                "keys": keys,
            }
        )

    async def saved(self) -> None:
        """Return when all counts are safe. For when nothing is counted any more."""
        while self._saved < self._version:
            self._settled.clear()
            await self._settled.wait()

    def sweep(self, exists: Callable[[KeyRecord], bool], now: float) -> None:
        """Forget deleted keys. `now` on any clock, in seconds; to be called once in a while."""
        for identity, usage in list(self._keys.items()):
            if exists(usage.key):
                usage.missing_since = None
            elif usage.missing_since is None:
                usage.missing_since = now
            elif now - usage.missing_since >= KEPT_SECONDS:
                del self._keys[identity]
                self._left_to_tell_apart += usage.told_apart

    def told_apart(self) -> Iterator[KeyUsage]:
        """The keys that have metrics of their own."""
        return (usage for usage in self._keys.values() if usage.told_apart)

    def _counts(self, usage: KeyUsage, model: ModelRecord | None) -> tuple[Counts, ...]:
        """What a request of a key counts in."""
        name = OTHER_MODELS if model is None else model.seen_from(usage.key.id.namespace)
        if name not in usage.models and len(usage.models) >= LISTED_MODELS:
            name = OTHER_MODELS
        counts = usage.models.get(name)
        if counts is None:
            counts = usage.models[name] = Counts()
        return (counts,) if usage.told_apart else (counts, self.others)

    def _save(self, version: int) -> None:
        self._saved = max(self._saved, version)
        if self._saved == self._version:
            self._settled.set()

    def _changed(self, since: int) -> list[KeyUsage]:
        found = []
        for usage in reversed(self._keys.values()):
            if usage.version <= since:
                break
            found.append(usage)
        found.reverse()
        return found


def _as_json(usage: KeyUsage) -> dict[str, Any]:
    return {
        "namespace": usage.key.id.namespace,
        "name": usage.key.id.name,
        "uid": usage.key.uid,
        "lastUsed": usage.last_used,
        "models": [
            {
                "name": name,
                "requests": counts.requests,
                "documents": counts.documents,
                "tokens": counts.tokens,
                "rejected": counts.rejected,
            }
            for name, counts in usage.models.items()
        ],
    }


def _whole(text: str | None) -> int:
    return int(text) if text is not None and len(text) < 19 and text.isascii() and text.isdigit() else 0
