"""What the status says."""

from __future__ import annotations

from rerank_runtime.failure import Failure, Reason
from rerank_runtime.status import Download, Phase, Status


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
