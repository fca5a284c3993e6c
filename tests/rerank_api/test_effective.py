"""Own fields over the catalog entry's over the defaults."""

from typing import Any

import pytest

from rerank_api.effective import Effective, effective
from rerank_api.recipe import Recipe

CASE = {"query": "q", "relevant": "r", "irrelevant": "i"}
OTHER = {"query": "q2", "relevant": "r2", "irrelevant": "i2"}


@pytest.mark.parametrize(
    ("own", "entry", "path", "value"),
    [
        ({}, {}, "resources.gpu.count", 1),
        ({}, {}, "resources.memory", "8Gi"),
        ({}, {}, "scoring.method", "Auto"),
        ({}, {}, "scoring.verification.mode", "Required"),
        ({}, {}, "engine.max_model_len", None),
        ({}, {"resources": {"gpu": {"count": 0}}}, "resources.gpu.count", 0),
        ({}, {"resources": {"gpu": {"count": 0}}}, "resources.gpu.resource_name", "nvidia.com/gpu"),
        ({}, {"resources": {"memory": "12Gi"}}, "resources.memory", "12Gi"),
        ({"resources": {"cpu": 4}}, {"resources": {"memory": "12Gi"}}, "resources.memory", "12Gi"),
        ({"resources": {"cpu": 4}}, {"resources": {"memory": "12Gi"}}, "resources.cpu", "4"),
        ({"resources": {"memory": "4Gi"}}, {"resources": {"memory": "12Gi"}}, "resources.memory", "4Gi"),
        # What is said wins also where it says the default.
        (
            {"resources": {"gpu": {"count": 1}}},
            {"resources": {"gpu": {"count": 0}}},
            "resources.gpu.count",
            1,
        ),
        ({"engine": {"dtype": "auto"}}, {"engine": {"dtype": "float32"}}, "engine.dtype", "auto"),
        (
            {"engine": {"trustRemoteCode": False}},
            {"engine": {"trustRemoteCode": True}},
            "engine.trust_remote_code",
            False,
        ),
        (
            {"scoring": {"truncation": {"maxTokensPerQuery": 5}}},
            {"scoring": {"truncation": {"maxTokensPerDocument": 9}, "instruction": "Find it"}},
            "scoring.truncation.max_tokens_per_document",
            9,
        ),
        (
            {"scoring": {"truncation": {"maxTokensPerQuery": 5}}},
            {"scoring": {"instruction": "Find it"}},
            "scoring.instruction",
            "Find it",
        ),
    ],
)
def test_the_nearer_one_wins_field_by_field(
    own: dict[str, Any], entry: dict[str, Any], path: str, value: object
) -> None:
    found: Any = effective(Recipe.model_validate(own), Recipe.model_validate(entry))
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(("cases", "wanted"), [(None, [CASE]), ([], []), ([OTHER], [OTHER])])
def test_a_list_of_ones_own_replaces_that_of_the_entry(
    cases: list[dict[str, str]] | None, wanted: list[dict[str, str]]
) -> None:
    entry = Recipe.model_validate({"scoring": {"verification": {"mode": "Report", "cases": [CASE]}}})
    said = {} if cases is None else {"cases": cases}
    own = Recipe.model_validate({"scoring": {"verification": said}})
    found = effective(own, entry).scoring.verification
    assert [case.model_dump() for case in found.cases] == wanted
    assert found.mode == "Report"


CLAIM = {"resourceClaimTemplateName": "gpu-24g"}
RESOURCE = {"resourceName": "nvidia.com/gpu.shared", "products": ["NVIDIA-L4"], "minMemory": "24G"}


def gpu(own: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    layers = [Recipe.model_validate({"resources": {"gpu": fields}}) for fields in (own, entry)]
    return effective(*layers).resources.gpu.model_dump(exclude_defaults=True, by_alias=True)


def test_who_asks_for_a_gpu_in_one_way_sets_the_other_aside() -> None:
    assert gpu(CLAIM, RESOURCE) == CLAIM
    assert gpu(RESOURCE, CLAIM) == RESOURCE
    assert gpu({"minMemory": "8G"}, CLAIM) == {"minMemory": "8G"}
    assert gpu({"products": []}, CLAIM) == CLAIM
    assert gpu({}, CLAIM) == CLAIM
    assert gpu({"count": 0}, CLAIM) == {"count": 0, **CLAIM}
    for wish in (CLAIM, RESOURCE):
        assert gpu(wish, {"count": 0}) == wish, "an entry that is served on the CPU is no match for a wish"


def test_nothing_said_is_the_defaults() -> None:
    assert effective(Recipe()) == effective(Recipe(), Recipe()) == Effective()
