"""Equal digests mean equal scores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rerank_runtime import identity
from rerank_runtime.options import OnOverflow
from rerank_runtime.serve_plan import Truncation
from rerank_runtime.status import Source
from tests.rerank_runtime.support import serve_plan

SOURCE = Source("org/name", "c" * 40)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    os.utime(tmp_path / "model.safetensors", (1, 1))
    return tmp_path


def test_what_changes_a_score_changes_it(weights: Path) -> None:
    plan = serve_plan()
    seen = {
        identity.digest(plan, SOURCE, weights),
        identity.digest(plan, Source("org/name", "d" * 40), weights),
        identity.digest(plan, Source("org/name", "c" * 40, "m-Q8_0.gguf"), weights),
        identity.digest(serve_plan(template="{{ messages }}"), SOURCE, weights),
        identity.digest(serve_plan(dtype="float16"), SOURCE, weights),
        identity.digest(serve_plan(truncation=Truncation(7, None, OnOverflow.REJECT)), SOURCE, weights),
        identity.digest(plan, SOURCE, weights, ["--enforce-eager"]),
        identity.digest(plan, None, weights),
    }
    assert len(seen) == 8
    assert all(len(found) == 32 for found in seen)


def test_another_replica_has_the_same(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    found = identity.digest(serve_plan(), SOURCE, weights)
    assert identity.digest(serve_plan(memory_bytes=7, gpu_memory_utilization=0.5), SOURCE, other) == found


def test_weights_of_no_commit_are_told_by_their_files(weights: Path) -> None:
    found = identity.digest(serve_plan(), None, weights)
    assert identity.digest(serve_plan(), None, weights) == found
    (weights / "model.safetensors").write_bytes(b"trained!")
    assert identity.digest(serve_plan(), None, weights) != found
