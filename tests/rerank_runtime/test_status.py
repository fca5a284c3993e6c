"""What the status says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import OnOverflow
from rerank_runtime.serve_plan import Truncation
from rerank_runtime.status import Download, Phase, Source, Status
from tests.rerank_runtime.support import serve_plan


def test_status_leaves_out_what_is_not_known() -> None:
    status = Status(Phase.DOWNLOADING)
    assert status.as_json() == {"phase": "Downloading", "reason": "", "message": "", "inFlight": 0}
    status.download = Download(1, 2, None)
    assert status.as_json()["download"] == {"bytes": 1, "totalBytes": 2}


def test_a_failure_is_past_once_the_next_phase_begins() -> None:
    status = Status(Phase.VERIFYING)
    status.fail(Failure(Reason.SCORES_CONSTANT, "all the same"))
    assert (status.ready, status.reason, status.message) == (False, "ScoresConstant", "all the same")
    status.enter(Phase.READY)
    assert (status.ready, status.reason, status.message) == (True, "", "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"repo": "a/b", "revision": "c", "files": {}}', {"repo": "a/b", "revision": "c"}),
        (
            '{"repo": "a/b", "revision": "c", "gguf": {"file": "x.gguf", "quantisation": null}}',
            {"repo": "a/b", "revision": "c", "file": "x.gguf"},
        ),
        ('{"repo": "a/b"}', None),
        ('{"repo": "a/b", "revision": "c", "gguf": []}', None),
        ("[]", None),
        ("{", None),
    ],
)
def test_the_source_is_what_fetch_wrote_down(
    tmp_path: Path, content: str, expected: dict[str, str] | None
) -> None:
    (tmp_path / "source.json").write_text(content)
    found = Source.read(tmp_path / "source.json")
    assert (found and found.as_json()) == expected


def test_without_a_source_there_is_none(tmp_path: Path) -> None:
    assert Source.read(tmp_path / "source.json") is None


def test_a_plan_is_shown_with_what_is_known_of_it() -> None:
    truncation = Truncation(max_tokens_per_document=100, on_overflow=OnOverflow.REJECT)
    plan = serve_plan(
        template="{{ messages }}",
        instruction="find",
        max_documents=64,
        pointwise=False,
        truncation=truncation,
    )
    shown = Status(Phase.STARTING, plan=plan, identity="0f" * 16).as_json()["model"]
    assert shown["scoring"] == {
        "method": "CrossEncoder",
        "range": "[0,1]",
        "instruction": "find",
        "templateSha256": plan.template_sha256,
        "planDigest": "0f" * 16,
        "pointwise": False,
        "maxDocuments": 64,
    }
    assert shown["truncation"] == {"maxTokensPerDocument": 100, "onOverflow": "Reject"}
    assert (shown["dtype"], shown["memoryBytes"], shown["prefixCaching"]) == ("float32", 0, False)
    caching = Status(Phase.STARTING, plan=serve_plan(kv_cache_bytes=2**20)).as_json()["model"]
    assert caching["prefixCaching"] is True
    assert "messages" not in json.dumps(shown)
