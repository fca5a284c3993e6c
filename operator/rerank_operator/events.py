"""Events on the resources: what happened, told once. The reconcilers record them last; a task posts them."""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

import structlog

from rerank_api import names
from rerank_api.api_key import APIKey
from rerank_api.conditions import Condition
from rerank_api.model_deployment import ModelDeployment
from rerank_operator import resources
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.cluster import Cluster
from rerank_operator.conditions import CALM, OVERDUE, TIGHT
from rerank_operator.resources import Object

_NOTE_LIMIT_BYTES: Final = 1024  # k8s.io/kubernetes/pkg/apis/core/validation, NoteLengthLimit
_REPEAT_SECONDS: Final = 600.0
_REMEMBERED: Final = 4096
# Those of a crowd of new resources, at about half a kilobyte each.
_MOST_WAITING: Final = 20_000
# Between two of them while there is something better to do.
_PAUSE_SECONDS: Final = 0.5

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Notice:
    """One event to be. `reason` is a word in CamelCase, `note` a sentence."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


def notices(old: Iterable[Condition], changed: Iterable[Condition]) -> list[Notice]:
    """What the changed conditions are worth telling: each problem, each milestone, once."""
    was_ready = any(condition.type == "Ready" and condition.status == "True" for condition in old)
    found: dict[str, Notice] = {}
    for condition in changed:
        if condition.type == "Progressing" and condition.reason != OVERDUE:
            continue  # it repeats the others
        notice = _notice(condition, was_ready=was_ready)
        if notice is not None:
            found.setdefault(notice.reason, notice)
    return list(found.values())


def _notice(condition: Condition, *, was_ready: bool) -> Notice | None:
    if condition.reason == TIGHT:
        return Notice("Warning", TIGHT, condition.message)
    if condition.status == "True":
        if condition.type in {"Serving", "NamesResolved"}:
            return None
        return Notice("Normal", condition.type, condition.message)
    if condition.status == "False" and condition.reason not in CALM:
        return Notice("Warning", condition.reason, condition.message)
    if condition.reason == "Downloading":
        return Notice("Normal", "Downloading", condition.message)
    if condition.type == "Ready" and was_ready:
        return Notice("Normal", condition.reason, condition.message)
    return None


@dataclass(frozen=True, slots=True)
class _News:
    """A notice about a resource, and when it was told, in nanoseconds since 1970."""

    kind: str
    namespace: str
    name: str
    uid: str
    notice: Notice
    at: int


@dataclass(slots=True)
class Recorder:
    """Posts events. The same note on the same object is posted once in ten minutes at most.

    They are news, not state, and wait for what is: no look waits for one, and while looks wait for a worker
    they are posted slowly. client-go does likewise (k8s.io/client-go/tools/record).

    Attributes:
        api: the API server.
        instance: who posts.
        busy: whether looks wait for a worker.
    """

    api: Cluster
    instance: str
    busy: Callable[[], bool] = lambda: False
    _posted: OrderedDict[tuple[str, str, str], float] = field(default_factory=OrderedDict)
    _waiting: deque[_News] = field(default_factory=partial(deque, maxlen=_MOST_WAITING))
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def record(self, resource: ModelDeployment | APIKey, found: Iterable[Notice]) -> None:
        """Have the notices posted. Where too many wait the oldest are given up."""
        metadata = resource.metadata
        for notice in found:
            if not self._repeats(metadata.uid, notice):
                told = (resource.kind, metadata.namespace, metadata.name, metadata.uid)
                self._waiting.append(_News(*told, notice=notice, at=time.time_ns()))
                self._arrived.set()

    async def run(self) -> None:
        """Post what is recorded, for ever."""
        while True:
            await self._arrived.wait()
            await self._post_next()
            if self.busy():
                await asyncio.sleep(_PAUSE_SECONDS)

    async def post(self) -> None:
        """Post all that waits, now."""
        while self._waiting:
            await self._post_next()

    async def _post_next(self) -> None:
        """An event that cannot be posted is logged and given up."""
        news = self._waiting.popleft()
        if not self._waiting:
            self._arrived.clear()
        try:
            await self.api.create_event(_event(news, instance=self.instance))
        except ApiError as error:
            _log.warning("an event was not posted", reason=news.notice.reason, status=error.status)
        except NotLeaderError:
            _log.warning("an event was not posted: the lease is not held", reason=news.notice.reason)

    def _repeats(self, uid: str, notice: Notice) -> bool:
        mark, now = (uid, notice.reason, notice.note), time.monotonic()
        last = self._posted.pop(mark, None)
        repeats = last is not None and now - last < _REPEAT_SECONDS
        self._posted[mark] = last if repeats and last is not None else now
        while len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)
        return repeats


def _event(news: _News, *, instance: str) -> Object:
    told = datetime.fromtimestamp(news.at / 1e9, UTC).isoformat(timespec="microseconds")
    return {
        "apiVersion": resources.EVENT.api_version,
        "kind": resources.EVENT.kind,
        # kubectl describe leaves events of this API version in the order of their names: so names count up.
        "metadata": {
            "name": f"{news.name}.{news.at:016x}{secrets.token_hex(2)}",
            "namespace": news.namespace,
        },
        "eventTime": told.replace("+00:00", "Z"),
        "reportingController": f"{names.GROUP}/{names.FIELD_MANAGER}",
        "reportingInstance": instance,
        "action": "Reconcile",
        "type": news.notice.type,
        "reason": news.notice.reason,
        "note": news.notice.note.encode()[:_NOTE_LIMIT_BYTES].decode(errors="ignore"),
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": news.kind,
            "name": news.name,
            "namespace": news.namespace,
            "uid": news.uid,
        },
    }
