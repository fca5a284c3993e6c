"""Events on the resources: what happened, told once, when it happens. The reconcilers post them last."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

from rerank_api import names
from rerank_api.api_key import APIKey
from rerank_api.conditions import Condition
from rerank_api.model_deployment import ModelDeployment
from rerank_operator import resources
from rerank_operator.api_error import ApiError
from rerank_operator.cluster import Cluster
from rerank_operator.conditions import CALM, OVERDUE, TIGHT
from rerank_operator.resources import Object

_NOTE_LIMIT_BYTES: Final = 1024  # k8s.io/kubernetes/pkg/apis/core/validation, NoteLengthLimit
_REPEAT_SECONDS: Final = 600.0
_REMEMBERED: Final = 4096

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


@dataclass(slots=True)
class Recorder:
    """Posts events. The same note on the same object is posted once in ten minutes at most."""

    api: Cluster
    instance: str
    _posted: OrderedDict[tuple[str, str, str], float] = field(default_factory=OrderedDict)

    async def record(self, resource: ModelDeployment | APIKey, found: Iterable[Notice]) -> None:
        """Post the notices. An event that cannot be posted is logged and given up: it is news, not state."""
        for notice in found:
            if self._repeats(resource.metadata.uid, notice):
                continue
            try:
                await self.api.create_event(_event(resource, notice, instance=self.instance))
            except ApiError as error:
                _log.warning("an event was not posted", reason=notice.reason, status=error.status)

    def _repeats(self, uid: str, notice: Notice) -> bool:
        mark, now = (uid, notice.reason, notice.note), time.monotonic()
        last = self._posted.pop(mark, None)
        repeats = last is not None and now - last < _REPEAT_SECONDS
        self._posted[mark] = last if repeats and last is not None else now
        while len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)
        return repeats


def _event(resource: ModelDeployment | APIKey, notice: Notice, *, instance: str) -> Object:
    metadata = resource.metadata
    return {
        "apiVersion": resources.EVENT.api_version,
        "kind": resources.EVENT.kind,
        # kubectl describe leaves events of this API version in the order of their names: so names count up.
        "metadata": {
            "name": f"{metadata.name}.{time.time_ns():016x}{secrets.token_hex(2)}",
            "namespace": metadata.namespace,
        },
        "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "reportingController": f"{names.GROUP}/{names.FIELD_MANAGER}",
        "reportingInstance": instance,
        "action": "Reconcile",
        "type": notice.type,
        "reason": notice.reason,
        "note": notice.note.encode()[:_NOTE_LIMIT_BYTES].decode(errors="ignore"),
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": resource.kind,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        },
    }
