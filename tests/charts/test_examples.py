"""The examples that the README and the chart's notes send a newcomer to."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.render import CHART, ROOT
from rerank_api.api_key import APIKey
from rerank_api.model_deployment import ModelDeployment
from tests.charts.pod_security import pod_specs, violations

EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))
MODELS = {"ModelDeployment": ModelDeployment, "APIKey": APIKey}


def documents(path: Path) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def named(number: str) -> dict[str, Any]:
    (path,) = [path for path in EXAMPLES if path.name.startswith(number)]
    (only,) = documents(path)
    return only


def test_they_are_numbered_from_one() -> None:
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_they_are_valid_and_say_how_to_use_them(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    for item in documents(path):
        assert item["metadata"]["namespace"] == "default"
        if item["kind"] in MODELS:
            MODELS[item["kind"]].model_validate(item)
        else:
            assert item["kind"] == "Job"


def test_the_key_opens_the_first_model_and_the_job_uses_that_key() -> None:
    model, key, job = named("01"), named("02"), named("04")
    assert key["spec"]["models"] == [model["metadata"]["name"]]
    container = job["spec"]["template"]["spec"]["containers"][0]
    (secret,) = [item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item]
    assert secret == {"name": key["spec"]["secret"]["name"], "key": "key"}
    assert f'"model": "{model["metadata"]["name"]}"' in container["args"][0]


def test_what_they_take_from_the_catalog_is_there() -> None:
    entries = {path.stem for path in (CHART / "files" / "catalog").glob("*.yaml")}
    models = [
        ModelDeployment.model_validate(item)
        for path in EXAMPLES
        for item in documents(path)
        if item["kind"] == "ModelDeployment"
    ]
    named = {model.spec.model.catalog for model in models} - {None}
    assert named
    assert named <= entries


def test_no_two_models_have_one_name() -> None:
    names = [item["metadata"]["name"] for path in EXAMPLES for item in documents(path)]
    assert len(names) == len(set(names))


def test_the_job_is_restricted_and_uses_an_image_of_the_release() -> None:
    job = named("04")
    ((_, spec),) = pod_specs([job])
    assert violations(spec) == []
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert spec["containers"][0]["image"] == f"rerank-gateway:{version}"
    compile(spec["containers"][0]["args"][0], "04", "exec")


def test_the_notes_make_a_model_and_a_key_that_fit() -> None:
    """The objects are read as they stand there: without a cluster helm renders no notes."""
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    _, _, rest = notes.partition("<<'END'\n")
    text, _, _ = rest.partition("\nEND\n")
    model, key = yaml.safe_load_all(text.replace("{{ $namespace }}", "team"))
    made = ModelDeployment.model_validate(model)
    assert (CHART / "files" / "catalog" / f"{made.spec.model.catalog}.yaml").is_file()
    opened = APIKey.model_validate(key)
    assert opened.spec.models == [made.metadata.name]
    for name in (made.metadata.name, opened.metadata.name, opened.secret_name):
        assert name in notes.partition("\nEND\n")[2], "the next commands name them"


def test_the_notes_ask_where_they_forward_a_port_to() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    forwarded = re.search(r"kubectl port-forward .* svc/rerank-gateway (\d+):80$", notes, re.MULTILINE)
    assert forwarded
    assert f"curl http://localhost:{forwarded[1]}/v1/rerank " in notes


def test_the_readme_asks_for_the_model_that_it_makes_with_the_key_that_it_makes() -> None:
    readme = (ROOT / "README.md").read_text()
    manifest = re.search(r"```yaml\n(.*?)```", readme, re.DOTALL)
    asked = re.search(r"-d '(\{.*?\})'", readme, re.DOTALL)
    assert manifest
    assert asked
    model, key = yaml.safe_load_all(manifest[1])
    made = ModelDeployment.model_validate(model)
    opened = APIKey.model_validate(key)
    assert (CHART / "files" / "catalog" / f"{made.spec.model.catalog}.yaml").is_file()
    assert made.metadata.namespace == opened.metadata.namespace
    assert opened.spec.models == [made.metadata.name] == [json.loads(asked[1])["model"]]
    for command in (
        f"kubectl create namespace {made.metadata.namespace}\n",
        f"modeldeployment/{made.metadata.name} apikey/{opened.metadata.name}\n",
        f"kubectl get secret {opened.secret_name} -n {opened.metadata.namespace} ",
    ):
        assert command in readme
