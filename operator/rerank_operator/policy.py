"""What an administrator allows the models of this installation: `policy` of the chart. Pure.

The chart makes a ValidatingAdmissionPolicy of the same value, which refuses at `kubectl apply` what a spec
alone shows. This is the second look: it sees what a catalog entry adds, and holds where there is no such
policy.
"""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field

from rerank_api.catalog_model import CatalogModel
from rerank_api.effective import Effective
from rerank_api.model_deployment import ModelDeployment
from rerank_api.resource import SpecModel
from rerank_operator import engine_flags
from rerank_operator.builders.source import Source
from rerank_operator.situation import Obstacle

_PUBLIC_HUB: Final = "https://huggingface.co"
_ASK: Final = "ask an administrator, who allows it in policy.{} of the chart"

Words = frozenset[Annotated[str, Field(min_length=1)]]
Commit = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@[0-9a-f]{40}$")]
Flag = Annotated[str, Field(pattern=r"^--[a-z0-9][a-z0-9-]*$")]


class Policy(SpecModel):
    """What is allowed. None is no limit; an empty set allows nothing.

    Attributes:
        remote_code: repositories whose Python code may run, each as "org/name@commit" with 40 hex digits.
        images: images of model pods besides the installation's own; see `image_is_listed`.
        extra_args: flags of vLLM that a model may set, each as "--name".
        hub_endpoints: addresses of hubs besides the installation's own.
        model_images: images with weights; as `images`.
        licenses: licences of catalog entries, as they name them. Then only the catalog is served: nothing
            tells the licence of anything else.
        max_replicas: most replicas of one model.
    """

    remote_code: frozenset[Commit] = frozenset()
    images: Words = frozenset()
    extra_args: frozenset[Flag] = frozenset()
    hub_endpoints: Words | None = None
    model_images: Words | None = None
    licenses: Words | None = None
    max_replicas: Annotated[int, Field(ge=0)] | None = None


def refusal(
    model: ModelDeployment,
    effective: Effective,
    source: Source,
    entry: CatalogModel | None,
    *,
    policy: Policy,
    hub_endpoint: str | None,
) -> Obstacle | None:
    """The first thing that the model asks for and the policy forbids, or None.

    Args:
        model: the resource.
        effective: how it is to run.
        source: where it comes from.
        entry: the catalog entry that it names.
        policy: what is allowed.
        hub_endpoint: the hub that the operator was installed with.
    """
    return (
        _licence(entry, policy)
        or _hub(source, policy, hub_endpoint)
        or _model_image(source, policy)
        or _remote_code(effective, source, policy, hub_endpoint)
        or _image(effective, policy)
        or _extra_args(effective, policy)
        or _replicas(model, policy)
    )


def image_is_listed(image: str, listed: Iterable[str]) -> bool:
    """Whether the list has the image, its repository (any tag or digest), or its beginning up to a slash."""
    return any(
        image == entry
        or (entry.endswith("/") and image.startswith(entry))
        or (image.startswith((f"{entry}:", f"{entry}@")) and "/" not in image[len(entry) :])
        for entry in listed
    )


def _licence(entry: CatalogModel | None, policy: Policy) -> Obstacle | None:
    if policy.licenses is None:
        return None
    allowed = _listed(policy.licenses)
    if entry is None:
        message = (
            f"spec.model: only models of the catalog are allowed (with the licences: {allowed}): use"
            " spec.model.catalog; kubectl get catalogmodels -o wide shows the licences"
        )
    elif entry.spec.license.lower() in {name.lower() for name in policy.licenses}:
        return None
    else:
        message = (
            f'spec.model.catalog: {entry.metadata.name} has the licence "{entry.spec.license}", which is not'
            f" allowed (allowed: {allowed}): choose another entry, or {_ASK.format('licenses')}"
        )
    return Obstacle("LicenseNotAllowed", message)


def _hub(source: Source, policy: Policy, hub_endpoint: str | None) -> Obstacle | None:
    if policy.hub_endpoints is None or source.repo is None:
        return None
    own = hub_endpoint or _PUBLIC_HUB
    allowed = {address.rstrip("/") for address in (*policy.hub_endpoints, own)}
    if (source.endpoint or _PUBLIC_HUB).rstrip("/") in allowed:
        return None
    message = (
        f"spec.model.huggingFace.endpoint: {source.endpoint} is not allowed: leave it out to use {own}, or"
        f" {_ASK.format('hubEndpoints')}"
    )
    return Obstacle("HubNotAllowed", message)


def _model_image(source: Source, policy: Policy) -> Obstacle | None:
    if policy.model_images is None or source.image is None:
        return None
    if image_is_listed(source.image, policy.model_images):
        return None
    message = (
        f"spec.model.image.reference: {source.image} is not allowed"
        f" (allowed: {_listed(policy.model_images)}): {_ASK.format('modelImages')}"
    )
    return Obstacle("ImageNotAllowed", message)


def _remote_code(
    effective: Effective, source: Source, policy: Policy, hub_endpoint: str | None
) -> Obstacle | None:
    """A commit's digits say nothing about what another hub, which anybody may run, hands out under them."""
    if not effective.engine.trust_remote_code:
        return None
    listed = "policy.remoteCode of the chart"
    if source.repo is None:
        what = "a volume or an image has no commit that an administrator could allow"
    elif source.commit is None:
        what = (
            f"{source.repo} at {source.revision} may change at any time; give spec.model.huggingFace.revision"
            f" the 40 digits of a commit, and have an administrator list {source.repo}@COMMIT in {listed}"
        )
    elif (source.endpoint or _PUBLIC_HUB).rstrip("/") != (hub_endpoint or _PUBLIC_HUB).rstrip("/"):
        what = (
            f"the list in {listed} is about the hub of the installation, and {source.endpoint} is another:"
            " remove spec.model.huggingFace.endpoint"
        )
    elif f"{source.repo}@{source.commit}" not in policy.remote_code:
        what = (
            f"ask an administrator to review {source.repo} at that commit and to add"
            f" {source.repo}@{source.commit} to {listed}, or use a model that needs no code of its own"
        )
    else:
        return None
    return Obstacle("RemoteCodeNotAllowed", f"spec.engine.trustRemoteCode is not allowed: {what}")


def _image(effective: Effective, policy: Policy) -> Obstacle | None:
    image = effective.engine.image
    if image is None or image_is_listed(image, policy.images):
        return None
    message = (
        f"spec.engine.image: {image} is not allowed (allowed: {_listed(policy.images)}): leave it out to run"
        f" the installation's own, or {_ASK.format('images')}"
    )
    return Obstacle("ImageNotAllowed", message)


def _extra_args(effective: Effective, policy: Policy) -> Obstacle | None:
    for argument in effective.engine.extra_args:
        flag = engine_flags.flag_of(argument)
        reason = engine_flags.never(flag)
        if reason is not None:
            message = f"spec.engine.extraArgs: nobody may set {flag}: {reason}"
            return Obstacle("ExtraArgNotAllowed", message)
        if flag not in policy.extra_args:
            message = (
                f"spec.engine.extraArgs: {flag} is not allowed (allowed: {_listed(policy.extra_args)}):"
                f" {_ASK.format('extraArgs')}"
            )
            return Obstacle("ExtraArgNotAllowed", message)
    return None


def _replicas(model: ModelDeployment, policy: Policy) -> Obstacle | None:
    autoscaling = model.spec.autoscaling
    field, most = "spec.replicas", model.spec.replicas
    if autoscaling is not None:
        field, most = "spec.autoscaling.maxReplicas", autoscaling.max_replicas
    if policy.max_replicas is None or most <= policy.max_replicas:
        return None
    message = (
        f"{field}: {most} is more than the {policy.max_replicas} that are allowed:"
        f" {_ASK.format('maxReplicas')}"
    )
    return Obstacle("TooManyReplicas", message)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
