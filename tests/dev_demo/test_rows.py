"""Resources as lines."""

from typing import Any

import pytest

from dev.demo.rows import Row, row_of


def resource(kind: str, status: dict[str, Any], generation: int = 1) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "one", "generation": generation}, "status": status}


@pytest.mark.parametrize(
    ("status", "phase", "detail"),
    [
        ({}, "Pending", "the operator has not seen it yet"),
        ({"observedGeneration": 0, "phase": "Ready"}, "Pending", "the operator has not seen it yet"),
        ({"observedGeneration": 1, "phase": "Starting", "message": "vLLM loads"}, "Starting", "vLLM loads"),
        (
            {"observedGeneration": 1, "phase": "Ready", "endpoint": "http://g/v1/rerank"},
            "Ready",
            "http://g/v1/rerank",
        ),
        (
            {
                "observedGeneration": 1,
                "phase": "Downloading",
                "download": {"bytes": 45_500_000, "totalBytes": 91_000_000, "etaSeconds": 5},
            },
            "Downloading",
            "50 % of 91 MB, 5 s left",
        ),
        (
            {
                "observedGeneration": 1,
                "phase": "Downloading",
                "download": {"bytes": 2_300_000_000, "totalBytes": 0},
            },
            "Downloading",
            "2 GB",
        ),
        (
            {"observedGeneration": 1, "phase": "Downloading", "message": "asks the hub"},
            "Downloading",
            "asks the hub",
        ),
    ],
)
def test_a_model_tells_its_phase(status: dict[str, Any], phase: str, detail: str) -> None:
    row = row_of(resource("ModelDeployment", status))
    assert (row.phase, row.detail) == (phase, detail)
    assert row.ready == (phase == "Ready")


def test_a_key_is_ready_or_says_why_not() -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Active", "message": ""}
    row = row_of(
        resource("APIKey", {"observedGeneration": 1, "conditions": [ready], "secretName": "search-key"})
    )
    assert row == Row("apikey/one", "Ready", "in Secret search-key")
    taken = {"type": "Ready", "status": "False", "reason": "SecretNameTaken", "message": "somebody else's"}
    row = row_of(resource("APIKey", {"observedGeneration": 1, "conditions": [taken]}))
    assert row.text() == "apikey/one: SecretNameTaken - somebody else's"
    assert not row.ready
