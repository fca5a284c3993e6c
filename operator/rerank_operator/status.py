"""The status of a ModelDeployment from its situation. Pure; called by the reconcilers, which write it."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel

from rerank_api.conditions import Condition, Verdict, merge
from rerank_api.model_deployment import (
    CaseStatus,
    DownloadStatus,
    ModelDeployment,
    ModelDeploymentStatus,
    ModelStatus,
    ScoringStatus,
)
from rerank_api.names import MODEL_LABEL
from rerank_operator import phase
from rerank_operator.builders.source import Source
from rerank_operator.compare import satisfied
from rerank_operator.conditions import verdicts
from rerank_operator.pod_status import Report, Verification
from rerank_operator.situation import Situation

_MESSAGE_LIMIT: Final = 2048
# Progress is written in steps of one percent: a download costs at most a hundred writes.
_DOWNLOAD_STEPS: Final = 100
# As much of a case as people need to know it again.
_QUERY_LIMIT: Final = 128
_SCORE_DECIMALS: Final = 4


def model_status(
    situation: Situation, *, gateway_url: str, now: datetime, besides: Iterable[Verdict] = ()
) -> ModelDeploymentStatus:
    """The whole status. What did not change keeps its value and its time, so that it need not be written.

    `besides` are conditions that no replica has to do with.
    """
    old = situation.model.status
    download = _download(situation, old.download)
    return ModelDeploymentStatus(
        observed_generation=situation.model.metadata.generation,
        phase=phase.phase(situation),
        conditions=merge(
            old.conditions,
            [*verdicts(situation), *besides],
            generation=situation.model.metadata.generation,
            now=now.replace(microsecond=0),
        ),
        replicas=situation.existing,
        ready_replicas=situation.serving,
        ready=f"{situation.serving}/{situation.wanted}",
        selector=f"{MODEL_LABEL}={situation.model.metadata.name}",
        model=_model(situation),
        effective=situation.effective,
        download=download,
        endpoint=gateway_url,
        message=phase.message(situation, download)[:_MESSAGE_LIMIT],
    )


def as_written(status: BaseModel, *, only: AbstractSet[str] | None = None) -> dict[str, Any]:
    """The status as it goes to the API server: absent instead of null; `only` some of its attributes."""
    return status.model_dump(
        mode="json", by_alias=True, exclude_none=True, include=None if only is None else set(only)
    )


def differs(wanted: Mapping[str, Any], live: Mapping[str, Any], *, fields: Iterable[str]) -> bool:
    """Whether the status has to be written. `fields` are ours: what is not wanted must be absent."""
    return any(
        not satisfied(wanted[field], live.get(field), field=field) if field in wanted else field in live
        for field in fields
    )


def fields_of(status: type[BaseModel], *, only: AbstractSet[str] | None = None) -> list[str]:
    """The names, as written, of the fields of a status; `only` of some of its attributes."""
    return [
        field.alias or name for name, field in status.model_fields.items() if only is None or name in only
    ]


def changed(old: Iterable[Condition], new: Iterable[Condition]) -> list[Condition]:
    """The conditions of `new` whose status or reason differs from `old`."""
    before = {(condition.type, condition.status, condition.reason) for condition in old}
    return [
        condition for condition in new if (condition.type, condition.status, condition.reason) not in before
    ]


def is_of(known: ModelStatus, source: Source) -> bool:
    """Whether what is known was found for this source. A repository is the same at another revision."""
    return known.repo == source.repo and (source.repo is not None or known.source_digest == source.key)


def memory_known(model: ModelDeployment, source: Source) -> int | None:
    """The GPU memory in bytes that earlier replicas of the same source told, if any did."""
    known = model.status.model
    return known.memory_bytes if known is not None and is_of(known, source) else None


def _reports(situation: Situation) -> list[Report]:
    return [pod.report for pod, _ in situation.newest if pod.report is not None]


def _model(situation: Situation) -> ModelStatus | None:
    """As the newest replicas report it. While none does, what was known stays, if it is the same source."""
    source, old = situation.source, situation.model.status.model
    report = next((report for report in _reports(situation) if report.model is not None), None)
    if report is not None and report.model is not None:
        found = report.model
        known = ModelStatus(
            source_digest=source.key if source.repo is None else None,
            file=report.source.file if report.source else None,
            family=found.family,
            architecture=found.architecture,
            parameters=found.parameters,
            weights_bytes=found.weights_bytes,
            context_length=found.context_length,
            dtype=found.dtype,
            memory_bytes=found.memory_bytes,
            prefix_caching=found.prefix_caching,
            scoring=_scoring(report),
        )
    elif old is not None and is_of(old, source):
        known = old
    else:
        known = ModelStatus()
    catalog = situation.model.spec.model.catalog
    known = known.model_copy(update={"catalog": catalog, "repo": source.repo, "revision": situation.commit})
    return known if known != ModelStatus() else None


def _scoring(report: Report) -> ScoringStatus | None:
    scoring = report.model.scoring if report.model else None
    if scoring is None:
        return None
    verification = report.verification
    return ScoringStatus(
        method=scoring.method,
        range=scoring.range,
        pointwise=scoring.pointwise,
        template_sha256=scoring.template_sha256,
        instruction=scoring.instruction,
        plan_digest=scoring.plan_digest,
        verified=verification.verified if verification and verification.mode != "Off" else None,
        cases=_cases(verification) or None,
    )


def _cases(verification: Verification | None) -> list[CaseStatus]:
    def rounded(score: float | None) -> float | None:
        return None if score is None else round(score, _SCORE_DECIMALS)

    return [
        CaseStatus(
            query=case.query[:_QUERY_LIMIT],
            language=case.language,
            relevant=rounded(case.relevant),
            irrelevant=rounded(case.irrelevant),
        )
        for case in (verification.cases if verification else ())
    ]


def _download(situation: Situation, old: DownloadStatus | None) -> DownloadStatus | None:
    running = [
        pod.report.download
        for pod, standing in situation.newest
        if standing.step == "Downloading" and pod.report is not None and pod.report.download is not None
    ]
    found = min(running, key=lambda part: part.bytes / max(part.total_bytes, 1), default=None)
    if found is None or found.total_bytes == 0:
        return None
    step = max(found.total_bytes // _DOWNLOAD_STEPS, 1)
    rounded = min(found.bytes, found.total_bytes) // step * step
    if old is not None and (old.bytes, old.total_bytes) == (rounded, found.total_bytes):
        return old
    eta = found.eta_seconds
    return DownloadStatus(bytes=rounded, total_bytes=found.total_bytes, eta_seconds=eta)
