"""values.yaml and values.schema.json: what may be set, and what is refused."""

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from manifests.render import CHART

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('gatway={"replicas": 3}', "gatway"),
        ("gateway.replica=3", "replica"),
        ('image.registy="example.com/"', "registy"),
        ("gateway.service.nodePort=30080", "nodePort"),
        ("crds.keep=true", "keep"),
        ("operator.resources.request={}", "request"),
        ('huggingFace.token="secret"', "token"),
    ],
)
def test_a_misspelt_value_is_refused_by_its_name(render_text: Run, value: str, named: str) -> None:
    result = render_text(value)
    assert result.returncode != 0
    assert f"'{named}'" in result.stderr
    assert "additional properties" in result.stderr.lower()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ('gateway.replicas="2"', "/gateway/replicas"),
        ("gateway.replicas=-1", "/gateway/replicas"),
        ("gateway.replicas=1.5", "/gateway/replicas"),
        ("gateway.maxBodyBytes=10", "/gateway/maxBodyBytes"),
        ("gateway.authMaxStalenessSeconds=0", "/gateway/authMaxStalenessSeconds"),
        ("gateway.requestTimeoutSeconds=0", "/gateway/requestTimeoutSeconds"),
        ('gateway.service.type="Loadbalancer"', "/gateway/service/type"),
        ("gateway.accessLogSample=2", "/gateway/accessLogSample"),
        ("operator.usage.pollSeconds=0", "/operator/usage/pollSeconds"),
        ('image.pullPolicy="ifNotPresent"', "/image/pullPolicy"),
        ('image.registry="example.com/team"', "/image/registry"),
        ('image.tag="not a tag"', "/image/tag"),
        ('runtime.images.cpu="not an image"', "/runtime/images/cpu"),
        ('huggingFace.endpoint="hub.example.com"', "/huggingFace/endpoint"),
        ('policy.remoteCode=["org/name"]', "/policy/remoteCode/0"),
        ('policy.remoteCode=["org/name@main"]', "/policy/remoteCode/0"),
        ('policy.remoteCode="org/name"', "/policy/remoteCode"),
        ('catalog.install="yes"', "/catalog/install"),
        ('watchNamespaces="team-a"', "/watchNamespaces"),
        ('watchNamespaces=["Team_A"]', "/watchNamespaces/0"),
        ('watchNamespaces=["a","a"]', "/watchNamespaces"),
        ('operator.resources.limits.memory="512 MB"', "/operator/resources/limits/memory"),
        ('tolerations=[{"key":"gpu","effect":"NoStart"}]', "/tolerations/0/effect"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(render_text: Run, value: str, path: str) -> None:
    result = render_text(value)
    assert result.returncode != 0
    assert path in result.stderr or path.strip("/").replace("/", ".") in result.stderr


def test_the_largest_body_must_find_room(render_text: Run) -> None:
    result = render_text("gateway.maxBodyBytes=104857600")
    assert result.returncode != 0
    assert "gateway.maxInFlightBytes must be at least twice gateway.maxBodyBytes" in result.stderr


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each value, in the order of the file."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict) and key not in ("resources", "nodeSelector", "annotations"):
            yield from leaves(value, (*path, key))


def test_every_value_is_commented() -> None:
    """A group is commented by its members; nodeSelector and tolerations share one comment."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = [
        line
        for above, line in itertools.pairwise(lines)
        if line.strip()
        and not line.lstrip().startswith(("#", "requests:", "limits:"))
        and not above.lstrip().startswith("#")
        and not line.endswith(":")
    ]
    assert bare == ["tolerations: []"]


def test_schema_and_values_name_the_same_things() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def named(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, value in node.get("properties", {}).items():
            yield (*path, key)
            yield from named(value, (*path, key))

    in_schema = {path for path in named(schema) if path != ("global",) and "tolerations" not in path[:-1]}
    assert in_schema == set(leaves(values))


def test_every_object_of_the_schema_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def open_objects(node: Any, path: str = "") -> Iterator[str]:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
                yield path
            for key, value in node.items():
                yield from open_objects(value, f"{path}/{key}")

    # Helm itself puts "global" into the values of a dependency.
    assert list(open_objects(schema)) == ["/properties/global"]
