"""The catalog entries that come with the chart, and how they reach the operator."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.render import CHART
from rerank_api.catalog_model import CatalogModel
from rerank_api.effective import effective
from rerank_api.recipe import Recipe
from rerank_operator import builtin_catalog
from rerank_operator import config as operator_config
from rerank_runtime import model_files
from rerank_runtime.families import unserved
from rerank_runtime.options import Device, Options
from rerank_runtime.plan import plan
from tests.charts.test_chart import container, env, one, pod
from tests.rerank_runtime.test_golden_plans import write

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]

FILES = sorted((CHART / "files" / "catalog").glob("*.yaml"))
MODELS = CHART.parents[1] / "tests" / "golden" / "models"
COMMIT = re.compile(r"[0-9a-f]{40}")


def entry(file: Path) -> CatalogModel:
    return CatalogModel.parse(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_entry_is_valid_and_named_like_its_file(file: Path) -> None:
    body = yaml.safe_load(file.read_text())
    assert (body["apiVersion"], body["kind"]) == ("rerank.dev/v1alpha1", "CatalogModel")
    assert body["metadata"] == {"name": file.stem}
    found = entry(file)
    assert found.spec.source.hugging_face.repo.rpartition("/")[2].lower() == file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_code_of_a_repository_is_pinned_and_told(file: Path) -> None:
    """What would be refused without an administrator says so, with what to list."""
    spec = entry(file).spec
    running = effective(Recipe(), spec.defaults)
    source = spec.source.hugging_face
    if running.engine.trust_remote_code:
        assert COMMIT.fullmatch(source.revision)
        assert f"{source.repo}@{source.revision}" in spec.description
        assert "policy.remoteCode" in spec.description
    else:
        assert "policy.remoteCode" not in spec.description


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_entry_says_what_the_serving_profile_decides(file: Path, tmp_path: Path) -> None:
    """From the published configuration of the model, with the entry's settings."""
    spec = entry(file).spec
    running = effective(Recipe(), spec.defaults)
    device = Device.CUDA if running.resources.gpu.count else Device.CPU
    options = Options(
        device=device,
        max_model_len=running.engine.max_model_len,
        trust_remote_code=running.engine.trust_remote_code,
    )
    decided = plan(model_files.read(write(published(file.stem), tmp_path / "model")), options)
    assert spec.family == decided.family
    assert spec.context_length == decided.context_length
    assert decided.remote_code is ("policy.remoteCode" in spec.description)
    assert spec.memory == gibibytes(decided.memory_bytes) + (" (CPU)" if device is Device.CPU else "")
    # Rounded as the card has it.
    number, unit = spec.parameters[:-1], {"M": 10**6, "B": 10**9}[spec.parameters[-1]]
    digits = len(number.partition(".")[2])
    assert float(number) == round(decided.parameters / unit, digits)


def published(stem: str) -> dict[str, Any]:
    """The model's golden configuration; of several, which differ in what they are asked for, the first."""
    found = sorted(MODELS.glob(f"{stem}*.yaml"), key=lambda path: (len(path.stem), path.stem))
    content: dict[str, Any] = yaml.safe_load(found[0].read_text(encoding="utf-8"))
    return content


def gibibytes(size: int) -> str:
    number = f"{size / 2**30:.1f}".removesuffix(".0")
    return f"{number} GiB"


def test_what_is_advised_instead_of_a_model_that_is_not_served_is_in_the_catalog() -> None:
    repos = {entry(file).spec.source.hugging_face.repo for file in FILES}
    for why in unserved.WHY.values():
        advised = set(re.findall(r"[\w-]+/[\w.-]*\w", why))
        assert advised
        assert advised <= repos


def test_a_licence_that_forbids_commercial_use_stands_in_plain_sight() -> None:
    restricted = {file.stem for file in FILES if "NC" in entry(file).spec.license}
    assert restricted == {"jina-reranker-v2-base-multilingual", "jina-reranker-v3"}
    for file in FILES:
        if file.stem in restricted:
            assert "non-commercial" in entry(file).spec.license
            assert "commercial use" in entry(file).spec.description


def test_the_operator_gets_every_entry(objects: Objects, tmp_path: Path) -> None:
    data = one(objects, "ConfigMap", "rerank-catalog")["data"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    wanted = {file.stem: yaml.safe_load(file.read_text())["spec"] for file in FILES}
    loaded = {body["metadata"]["name"]: body["spec"] for body in builtin_catalog.load(tmp_path)}
    assert loaded == wanted
    assert json.dumps(loaded, sort_keys=True) == json.dumps(wanted, sort_keys=True), "numbers stay whole"
    (volume,) = [volume for volume in pod(objects, "rerank-operator")["volumes"] if "configMap" in volume]
    (mount,) = [
        mount
        for mount in container(objects, "rerank-operator")["volumeMounts"]
        if mount["name"] == volume["name"]
    ]
    assert volume["configMap"]["name"] == "rerank-catalog"
    assert env(objects, "rerank-operator")["RERANK_CATALOG_DIR"] == mount["mountPath"]


def test_another_catalog_restarts_the_operator(objects: Objects, render: Render) -> None:
    def annotations(objects: Objects) -> dict[str, str]:
        template = one(objects, "Deployment", "rerank-operator")["spec"]["template"]
        found: dict[str, str] = template["metadata"].get("annotations", {})
        return found

    assert annotations(objects).keys() == {"rerank.dev/catalog"}
    assert annotations(render("catalog.install=false")) == {}


def test_an_installation_may_do_without(render: Render) -> None:
    without = render("catalog.install=false")
    assert "ConfigMap" not in {item["kind"] for item in without}
    assert "RERANK_CATALOG_DIR" not in env(without, "rerank-operator")
    (rule,) = one(without, "ClusterRole", "rerank-operator-catalog")["rules"]
    assert rule["verbs"] == ["get", "list", "watch"]


def test_the_operator_may_not_delete_entries(objects: Objects) -> None:
    (rule,) = one(objects, "ClusterRole", "rerank-operator-catalog")["rules"]
    assert rule["verbs"] == ["get", "list", "watch", "create", "patch"]


def test_everybody_may_read_the_catalog_unless_told_otherwise(objects: Objects, render: Render) -> None:
    (rule,) = one(objects, "ClusterRole", "rerank-catalog-view")["rules"]
    assert rule["verbs"] == ["get", "list", "watch"]
    names = {item["metadata"]["name"] for item in render("rbac.catalogForEverybody=false")}
    assert "rerank-catalog-view" not in names


def test_the_policy_reaches_the_operator(render: Render) -> None:
    listed = [f"org/a@{'0' * 40}", f"org/b.c@{'f' * 40}"]
    told = env(render(f"policy.remoteCode={json.dumps(listed)}"), "rerank-operator")
    by_field = {"RERANK_NAMESPACE": "n", "RERANK_POD_NAME": "p"}
    assert operator_config.from_environment({**told, **by_field}).policy.remote_code == set(listed)
