"""Does what was planned for the children of a model. Called by the model reconciler."""

from collections.abc import Mapping
from typing import Final

import structlog

from rerank_api.model_deployment import ModelDeployment
from rerank_operator.api_error import ApiError
from rerank_operator.builders import deployment
from rerank_operator.cluster import Cluster
from rerank_operator.events import Notice, Recorder
from rerank_operator.plan import Plan, Step
from rerank_operator.resources import Object, named
from rerank_operator.situation import Obstacle

# The API server drops fields that it does not know without a word: replicas would start without a model, or
# anywhere.
_UNSUPPORTED: Final[Mapping[deployment.RecentField, Obstacle]] = {
    "image volume": Obstacle(
        "ImageVolumesUnsupported",
        "this cluster's API server does not know image volumes, which spec.model.image needs: turn on the"
        " feature gate ImageVolume (Kubernetes 1.33 and 1.34), or upgrade to 1.35, or bring the model by"
        " spec.model.huggingFace or spec.model.persistentVolumeClaim",
    ),
    "resource claim": Obstacle(
        "ResourceClaimsUnsupported",
        "this cluster's API server does not know resource claims of pods, which"
        " spec.resources.gpu.resourceClaimTemplateName needs: upgrade to Kubernetes 1.34 with the feature"
        " gate DynamicResourceAllocation left on, or ask for the GPU by spec.resources.gpu.resourceName",
    ),
}
_log = structlog.get_logger()


async def act(planned: Plan, model: ModelDeployment, *, api: Cluster, recorder: Recorder) -> Obstacle | None:
    """Apply the steps in their order, then remove what is not wanted.

    Returns:
        What kept the rest from being done: it takes a person, or children of an earlier owner must go first.

    Raises:
        ApiError: what passes by itself; look again.
        NotLeaderError: another process leads.
    """
    if (obstacle := _in_the_way(planned)) is not None:
        return obstacle
    done: list[str] = []
    try:
        for step in planned.steps:
            if (obstacle := await _apply(step, api)) is not None:
                return obstacle
            done.append(named(step.intent))
    finally:
        if done:
            _log.info("applied", what=done, namespace=model.metadata.namespace)
    for there in planned.removals:
        await _remove(there, model, api=api, recorder=recorder)
    return None


async def _apply(step: Step, api: Cluster) -> Obstacle | None:
    try:
        if recent := deployment.recent_fields(step.intent):
            rehearsed = await api.rehearse(step.intent, resource_version=step.resource_version)
            dropped = min(recent - deployment.recent_fields(rehearsed), default=None)
            if dropped is not None:
                return _UNSUPPORTED[dropped]
        await api.apply(step.intent, resource_version=step.resource_version)
    except ApiError as error:
        if not _takes_a_person(error):
            raise
        kind, what = step.intent["kind"], named(step.intent)
        return Obstacle(f"{kind}Refused", f"{what} was refused: {error.message}")
    return None


async def _remove(there: Object, model: ModelDeployment, *, api: Cluster, recorder: Recorder) -> None:
    what = named(there)
    try:
        await api.delete(there)
    except ApiError as error:
        if not _takes_a_person(error):
            raise
        # The model can do with it: no obstacle.
        told = Notice("Warning", f"{there['kind']}Left", f"{what} was not removed: {error.message}")
        recorder.record(model, [told])
    else:
        _log.info("removed", what=[what], namespace=model.metadata.namespace)


def _in_the_way(planned: Plan) -> Obstacle | None:
    if planned.taken:
        names = ", ".join(planned.taken)
        return Obstacle(
            "NameTaken",
            f"{names} exists and is not this ModelDeployment's: remove or rename it, or give this"
            " ModelDeployment another name",
        )
    if planned.leaving:
        names = ", ".join(planned.leaving)
        return Obstacle("Replacing", f"waiting for {names}, which is being removed")
    return None


def _takes_a_person(error: ApiError) -> bool:
    """A failing admission webhook makes 500 of a request: somebody has to know."""
    return error.refused or error.status == 500
