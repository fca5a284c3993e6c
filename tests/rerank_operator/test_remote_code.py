"""Code of a repository runs only where an administrator listed it, at that commit, from that hub."""

from typing import Any

import pytest

from rerank_api.effective import effective
from rerank_operator.builders.source import source_of
from rerank_operator.remote_code import refusal
from tests.rerank_operator.samples import COMMIT, model

LISTED = frozenset({f"org/own-code@{COMMIT}"})


def asked(hub: str | None = None, **source: Any) -> str:
    """The way out that a refusal names; empty when the code may run. `hub` is the installation's."""
    of = model(
        model={"huggingFace": {"repo": "org/own-code", "revision": COMMIT, **source}},
        engine={"trustRemoteCode": True},
    )
    found = refusal(effective(of.spec), source_of(of, hub_endpoint=hub), allowed=LISTED, hub_endpoint=hub)
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
    source = source_of(of, hub_endpoint=None)
    found = refusal(effective(of.spec), source, allowed=LISTED, hub_endpoint=None)
    assert found is not None
    assert "a volume or an image has no commit" in found.message


def test_nothing_is_asked_of_models_without_code() -> None:
    of = model()
    source = source_of(of, hub_endpoint=None)
    assert refusal(effective(of.spec), source, allowed=frozenset(), hub_endpoint=None) is None
