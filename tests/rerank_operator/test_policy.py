"""What an administrator allows runs, and nothing else; a refusal names the field and the way out."""

from typing import Any

import pytest

from rerank_api.catalog_model import CatalogModel
from rerank_api.effective import effective
from rerank_api.model_deployment import ModelDeployment
from rerank_operator import engine_flags, policy
from rerank_operator.builders.source import source_of
from rerank_operator.policy import Policy, image_is_listed
from rerank_operator.situation import Obstacle
from tests.rerank_operator.samples import COMMIT, model
from tests.rerank_operator.test_catalog import entry

LISTED = Policy(remote_code=frozenset({f"org/own-code@{COMMIT}"}))
DIGEST = "sha256:" + "d" * 64


def refusal(
    of: ModelDeployment, allowed: Policy, *, hub: str | None = None, named: CatalogModel | None = None
) -> Obstacle | None:
    """What is said of a model under a policy; `hub` is the installation's, `named` its catalog entry."""
    found = effective(of.spec, named.spec.defaults if named else None)
    source = source_of(of, hub_endpoint=hub, entry=named)
    return policy.refusal(of, found, source, named, policy=allowed, hub_endpoint=hub)


def told(of: ModelDeployment, **allowed: Any) -> str:
    """The reason and the message under such a policy, as `policy` of the chart has it."""
    found = refusal(of, Policy.model_validate(allowed))
    return "" if found is None else f"{found.reason} {found.message}"


# Code of repositories


def asked(hub: str | None = None, **source: Any) -> str:
    """The way out that a refusal names; empty when the code may run. `hub` is the installation's."""
    of = model(
        model={"huggingFace": {"repo": "org/own-code", "revision": COMMIT, **source}},
        engine={"trustRemoteCode": True},
    )
    found = refusal(of, LISTED, hub=hub)
    if found is None:
        return ""
    assert found.reason == "RemoteCodeNotAllowed"
    assert found.message.startswith("spec.engine.trustRemoteCode is not allowed: ")
    return found.message


def test_what_is_listed_may_run() -> None:
    assert asked() == ""
    assert asked(hub="https://hub.example.com") == ""
    assert asked(endpoint="https://huggingface.co/") == "", "the public hub by its name"


@pytest.mark.parametrize(
    ("source", "way_out"),
    [
        ({"revision": "d" * 40}, f"add org/own-code@{'d' * 40} to policy.remoteCode"),
        ({"repo": "org/other"}, f"add org/other@{COMMIT} to policy.remoteCode"),
        ({"repo": "ORG/own-code"}, f"add ORG/own-code@{COMMIT} to policy.remoteCode"),
        ({"revision": "main"}, "give spec.model.huggingFace.revision the 40 digits of a commit"),
        ({"revision": COMMIT.upper()}, "give spec.model.huggingFace.revision the 40 digits"),
        # Its own hub could hand out anything under the digits that were reviewed.
        ({"endpoint": "https://mine.example"}, "remove spec.model.huggingFace.endpoint"),
    ],
)
def test_what_is_not_listed_may_not(source: dict[str, str], way_out: str) -> None:
    assert way_out in asked(**source)


def test_another_hub_than_that_of_the_installation_may_not() -> None:
    told = asked(hub="https://hub.example.com", endpoint="https://huggingface.co")
    assert "remove spec.model.huggingFace.endpoint" in told


def test_a_volume_may_not() -> None:
    of = model(model={"persistentVolumeClaim": {"claimName": "w"}}, engine={"trustRemoteCode": True})
    found = refusal(of, LISTED)
    assert found is not None
    assert "a volume or an image has no commit" in found.message


# Everything else


def test_a_model_that_asks_for_nothing_special_is_always_allowed() -> None:
    nothing = Policy(
        hub_endpoints=frozenset(), model_images=frozenset(), images=frozenset(), extra_args=frozenset()
    )
    assert refusal(model(), nothing) is None


@pytest.mark.parametrize(
    ("image", "listed", "allowed"),
    [
        ("r.example/team/run:1", ["r.example/team/run:1"], True),
        ("r.example/team/run:2", ["r.example/team/run:1"], False),
        ("r.example/team/run:2", ["r.example/team/run"], True),
        (f"r.example/team/run@{DIGEST}", ["r.example/team/run"], True),
        (f"r.example/team/run:1@{DIGEST}", ["r.example/team/run"], True),
        ("r.example/team/runner:2", ["r.example/team/run"], False),
        ("r.example/team/run/other:2", ["r.example/team/run"], False),
        ("r.example/team/run:2", ["r.example/"], True),
        ("r.example.evil/run:2", ["r.example"], False),
        ("r.example:5000/run:2", ["r.example"], False),
        ("r.example:5000/run:2", ["r.example:5000/"], True),
        ("run:1", [], False),
        ("run:1", ["other", "run"], True),
    ],
)
def test_which_images_a_list_has(image: str, listed: list[str], allowed: bool) -> None:
    assert image_is_listed(image, listed) is allowed


def test_an_image_is_denied_until_it_is_listed() -> None:
    of = model(engine={"image": "r.example/run:1"})
    assert told(of) == (
        "ImageNotAllowed spec.engine.image: r.example/run:1 is not allowed (allowed: none): leave it out to"
        " run the installation's own, or ask an administrator, who allows it in policy.images of the chart"
    )
    assert "(allowed: a, b)" in told(of, images=["b", "a"])
    assert told(of, images=["r.example/"]) == ""


@pytest.mark.parametrize(
    ("argument", "listed", "message"),
    [
        ("--max-num-seqs=4", ["--max-num-seqs"], ""),
        ("--enable-prefix-caching", ["--enable-prefix-caching"], ""),
        ("--max-num-seqs=4", [], "--max-num-seqs is not allowed (allowed: none): ask an administrator"),
        ("--max-num-seqs=4", ["--seed"], "--max-num-seqs is not allowed (allowed: --seed)"),
        # Whatever is listed.
        ("--port=1", ["--port"], "nobody may set --port: the runtime sets it itself"),
        ("--dtype=half", ["--dtype"], "it has a field of its own, spec.engine.dtype"),
        ("--trust-remote-code", ["--trust-remote-code"], "it has a field of its own, spec.engine.trust"),
        ("--middleware=x", ["--middleware"], "the runtime sets it itself"),
        ("--config=/x", ["--config"], "it would read further flags from a file"),
        ("--kv-transfer-config={}", ["--kv-transfer-config"], "it would load code"),
        ("--enable-log-requests", ["--enable-log-requests"], "texts of the users would stand in the log"),
        # vLLM's parser takes a beginning for the flag, and knows the negative of a switch.
        ("--trust-remote", ["--trust-remote"], "nobody may set --trust-remote:"),
        ("--middle=x", ["--middle"], "nobody may set --middle:"),
        ("--no-trust-remote-code", ["--no-trust-remote-code"], "nobody may set"),
    ],
)
def test_which_flags_a_model_may_set(argument: str, listed: list[str], message: str) -> None:
    found = told(model(engine={"extraArgs": [argument]}), extraArgs=listed)
    assert message in found
    assert bool(found) is bool(message)
    assert not found or found.startswith("ExtraArgNotAllowed spec.engine.extraArgs: ")


def test_flags_are_written_as_the_engine_has_them() -> None:
    assert all(flag.startswith("--") and flag == flag.lower() for flag in engine_flags.NEVER)


@pytest.mark.parametrize(
    ("endpoint", "hub", "listed", "allowed"),
    [
        (None, None, [], True),
        ("https://huggingface.co/", None, [], True),
        ("https://mine.example", None, None, True),
        ("https://mine.example", None, [], False),
        ("https://mine.example/", None, ["https://mine.example"], True),
        ("https://huggingface.co", "https://hub.corp", [], False),
        (None, "https://hub.corp", [], True),
    ],
)
def test_which_hubs_a_model_may_name(
    endpoint: str | None, hub: str | None, listed: list[str] | None, allowed: bool
) -> None:
    source = {"repo": "o/r"} | ({"endpoint": endpoint} if endpoint else {})
    found = refusal(
        model(model={"huggingFace": source}), Policy.model_validate({"hubEndpoints": listed}), hub=hub
    )
    assert (found is None) is allowed
    assert found is None or "leave it out to use https://hu" in found.message


def test_images_with_weights() -> None:
    of = model(model={"image": {"reference": f"r.example/weights@{DIGEST}"}})
    assert told(of) == ""
    assert told(of, modelImages=["r.example/weights"]) == ""
    assert told(of, modelImages=[]).startswith(
        f"ImageNotAllowed spec.model.image.reference: r.example/weights@{DIGEST}"
    )


@pytest.mark.parametrize(
    ("licences", "allowed"), [(None, True), (["mit"], True), (["Apache-2.0"], False), ([], False)]
)
def test_licences_of_the_catalog(licences: list[str] | None, allowed: bool) -> None:
    named = CatalogModel.parse(entry("e", license="MIT"))
    of = model(model={"catalog": named.metadata.name})
    found = refusal(of, Policy.model_validate({"licenses": licences}), named=named)
    assert (found is None) is allowed
    assert found is None or f'{named.metadata.name} has the licence "MIT", which is not' in found.message


def test_a_licence_that_nothing_tells_is_not_allowed() -> None:
    assert "only models of the catalog are allowed (with the licences: MIT)" in told(
        model(), licenses=["MIT"]
    )


@pytest.mark.parametrize(
    ("replicas", "most", "allowed"), [(3, None, True), (3, 3, True), (4, 3, False), (0, 0, True)]
)
def test_the_most_replicas(replicas: int, most: int | None, allowed: bool) -> None:
    found = told(model(replicas=replicas), maxReplicas=most)
    assert (found == "") is allowed
    assert not found or found.startswith(
        "TooManyReplicas spec.replicas: 4 is more than the 3 that are allowed: ask"
    )


def test_the_most_replicas_that_autoscaling_may_make() -> None:
    growing = model(autoscaling={"maxReplicas": 4})
    assert told(growing, maxReplicas=4) == ""
    assert told(growing, maxReplicas=3).startswith(
        "TooManyReplicas spec.autoscaling.maxReplicas: 4 is more than the 3 that are allowed: ask"
    )


def test_what_a_catalog_entry_adds_counts_too() -> None:
    named = CatalogModel.parse(
        entry("e", defaults={"engine": {"extraArgs": ["--seed=1"], "image": "r.example/run:1"}})
    )
    of = model(model={"catalog": named.metadata.name})
    found = refusal(of, Policy(images=frozenset({"r.example/"})), named=named)
    assert found is not None
    assert found.reason == "ExtraArgNotAllowed"
