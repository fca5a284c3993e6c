"""CRDs and pydantic models say the same: fields, required, defaults, enumerations. In both directions."""

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rerank_api.api_key import APIKey
from rerank_api.catalog_model import CatalogModel
from rerank_api.model_deployment import ModelDeployment

CRDS = Path(__file__).parents[2] / "crds"
Kind = type[ModelDeployment] | type[APIKey] | type[CatalogModel]
KINDS: list[Kind] = [ModelDeployment, APIKey, CatalogModel]


def crd(kind: Kind) -> Any:
    return yaml.safe_load((CRDS / f"rerank.dev_{kind.plural}.yaml").read_text())


def schema(kind: Kind) -> Any:
    return crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(model: type[BaseModel], node: Any, path: str) -> list[tuple[str, FieldInfo, Any]]:
    """Each field of the model with its node in the schema; the field sets must be equal at each level."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    assert set(fields) == set(node["properties"]), f"fields of {path}"
    found = []
    for name, field in fields.items():
        child = node["properties"][name]
        found.append((f"{path}.{name}", field, child))
        inner = inner_model(field.annotation)
        if inner is not None:
            found += walk(inner, child.get("items", child), f"{path}.{name}")
    return found


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, be it optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := inner_model(part))), None)


def literals(annotation: Any) -> set[Any]:
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if get_origin(annotation) in {Union, types.UnionType}:
        return {value for part in get_args(annotation) for value in literals(part)}
    return set()


def parts(kind: Kind) -> list[tuple[str, FieldInfo, Any]]:
    root = schema(kind)
    return [found for part, model in sections(kind) for found in walk(model, root["properties"][part], part)]


def sections(kind: Kind) -> list[tuple[str, type[BaseModel]]]:
    """`spec`, and `status` where there is one, with their models."""
    models = {name: inner_model(field.annotation) for name, field in kind.model_fields.items()}
    named = [(name, model) for name, model in models.items() if model is not None and name != "metadata"]
    assert {name for name, _ in named} == set(schema(kind)["properties"]) - {"apiVersion", "kind", "metadata"}
    return named


@pytest.mark.parametrize("kind", KINDS)
def test_names_agree(kind: Kind) -> None:
    names = crd(kind)["spec"]["names"]
    assert (names["kind"], names["plural"]) == (kind.kind, kind.plural)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_defaults_and_enumerations_agree(kind: Kind) -> None:
    for path, field, node in parts(kind):
        allowed = literals(field.annotation)
        assert allowed == set(node.get("enum", ())), f"values of {path}"
        if not path.startswith("spec."):
            continue
        default = field.get_default(call_default_factory=True)
        if node.get("default") == {}:
            assert isinstance(default, BaseModel), f"default of {path}"
        elif "default" in node:
            assert node["default"] == default, f"default of {path}"
        elif not field.is_required():
            assert not default, f"{path} has the default {default!r} in the model alone"


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_schema_requires_the_model_requires(kind: Kind) -> None:
    root = schema(kind)
    for part, model in sections(kind):
        compare_required(model, root["properties"][part], part, both=part == "spec")


def compare_required(model: type[BaseModel], node: Any, path: str, *, both: bool) -> None:
    """In a spec both require the same; a status is read leniently, so there the model may require less."""
    wanted = {field.alias or name for name, field in model.model_fields.items() if field.is_required()}
    given = set(node.get("required", ()))
    if both:
        assert wanted == given, f"required fields of {path}"
    for name, field in model.model_fields.items():
        inner = inner_model(field.annotation)
        if inner is not None:
            child = node["properties"][field.alias or name]
            compare_required(inner, child.get("items", child), f"{path}.{name}", both=both)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_explained(kind: Kind) -> None:
    def unexplained(node: Any, path: str) -> list[str]:
        missing = [] if node.get("description", "").strip() or path.endswith("metadata") else [path]
        for name, child in node.get("properties", {}).items():
            missing += unexplained(child, f"{path}.{name}")
        if "items" in node:
            missing += unexplained(node["items"], f"{path}[]")
        return missing

    assert unexplained(schema(kind), kind.kind) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_names_its_field(kind: Kind) -> None:
    def rules(node: Any) -> list[str]:
        found = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
        for child in [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]:
            found += rules(child)
        return found

    assert rules(schema(kind))
    for message in rules(schema(kind)):
        assert "spec." in message or "metadata.name" in message


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_a_user_writes_is_bounded(kind: Kind) -> None:
    def unbounded(node: Any, path: str) -> list[str]:
        found = []
        if node.get("type") == "string" and "enum" not in node and "maxLength" not in node:
            found.append(path)
        if node.get("type") == "array" and "maxItems" not in node:
            found.append(path)
        if isinstance(node.get("additionalProperties"), dict) and "maxProperties" not in node:
            found.append(path)
        for name, child in node.get("properties", {}).items():
            found += unbounded(child, f"{path}.{name}")
        if "items" in node:
            found += unbounded(node["items"], f"{path}[]")
        return found

    assert unbounded(schema(kind)["properties"]["spec"], "spec") == []


@pytest.mark.parametrize("kind", [ModelDeployment, APIKey])
def test_what_one_manager_writes_as_a_whole_is_owned_as_a_whole(kind: Kind) -> None:
    """Else the API server keeps, merges and sends each field's owner: a fifth of an object in bytes."""
    for name, part in schema(kind)["properties"]["status"]["properties"].items():
        whole = part.get("items", part)
        if whole["type"] == "object":
            assert whole.get("x-kubernetes-map-type") == "atomic", name
