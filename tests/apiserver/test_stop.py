"""Told to stop, or unwell, the operator ends in time and in order, whatever the API server does."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml

from dev.cluster.access import Access
from dev.cluster.paths import Layout
from dev.cluster.processes import pid_file, read_record
from tests.apiserver.api import Api, eventually
from tests.apiserver.models import apply_model
from tests.apiserver.operator_process import ROOT, Operator, install_rights

LEASE = "/apis/coordination.k8s.io/v1/namespaces/rerank-system/leases/rerank-operator"


def grace_seconds() -> int:
    """How long the kubelet waits before it kills the operator."""
    for body in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()):
        if body["kind"] == "Deployment" and body["metadata"]["name"] == "rerank-operator":
            return int(body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
    raise AssertionError("no Deployment of the operator")


def end_of(operator: Operator) -> int:
    """Its exit code, which it must have in time."""
    assert operator.process is not None
    code = operator.process.wait(timeout=grace_seconds())
    operator.process = None
    return code


def unready(operator: Operator) -> str:
    try:
        urlopen(f"http://127.0.0.1:{operator.port}/readyz", timeout=5).close()
    except HTTPError as error:
        return error.read().decode()
    except OSError:
        pass
    return ""


@contextlib.contextmanager
def half_open(access: Access) -> Iterator[None]:
    """The API server takes connections and requests, and answers none."""
    record = read_record(pid_file(Layout(access.kubeconfig.parent), "kube-apiserver"))
    assert record is not None
    os.kill(record.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(record.pid, signal.SIGCONT)


@pytest.fixture
def operators(api: Api, operator: Operator, tmp_path: Path) -> Iterator[tuple[Operator, Operator]]:
    """Two operators that do not run yet; nor does the session's own."""
    if operator.process is not None:
        operator.stop()
    token = install_rights(api)
    made = Operator(api, tmp_path / "first", token), Operator(api, tmp_path / "second", token)
    yield made
    for one in made:
        if one.process is not None:
            one.kill()


def test_while_it_waits_for_an_api_server_that_does_not_answer(
    control_plane: Access, operators: tuple[Operator, Operator]
) -> None:
    waiting, _ = operators
    with half_open(control_plane):
        waiting.start(ready=False)
        eventually("it waits", lambda: "waiting for the API server" in unready(waiting))
        waiting.send(signal.SIGTERM)
        assert end_of(waiting) == 0


def test_at_work(api: Api, namespace: str, operators: tuple[Operator, Operator]) -> None:
    """Every worker has something to do. What the next one needs not wait for is the Lease."""
    busy, _ = operators
    busy.start()
    for number in range(20):
        apply_model(api, namespace, f"m{number}")
    eventually("it works", lambda: busy.metric("rerank_operator_writes_total") > 0)
    busy.send(signal.SIGTERM)
    assert end_of(busy) == 0
    assert api.get(LEASE)["spec"]["holderIdentity"] == ""


def test_at_work_and_standing_by_while_the_api_server_does_not_answer_any_more(
    api: Api, namespace: str, control_plane: Access, operators: tuple[Operator, Operator]
) -> None:
    leader, standby = operators
    leader.start()
    standby.start(ready=False)
    eventually("the second waits", lambda: "waiting for the lease" in standby.log())
    for number in range(20):
        apply_model(api, namespace, f"m{number}")
    with half_open(control_plane):
        leader.send(signal.SIGTERM)
        standby.send(signal.SIGTERM)
        assert end_of(standby) == 0
        assert end_of(leader) in {0, 1}  # 1: by then it has lost the Lease, which ends it at once


def test_a_dead_watch_ends_it_in_order(
    api: Api, operators: tuple[Operator, Operator], tmp_path: Path
) -> None:
    """Every watch counts as dead here, as soon as nothing happens for three seconds."""
    unwell, _ = operators
    (tmp_path / "sitecustomize.py").write_text(
        "from rerank_operator import watches\nwatches.DEAD_SECONDS = 3\n"
    )
    unwell.environment["PYTHONPATH"] = f"{tmp_path}:{ROOT / 'api'}:{ROOT / 'operator'}"
    unwell.start(ready=False)
    eventually("it says so", lambda: "no sign of life of the watch of" in unwell.log(), seconds=60)
    assert end_of(unwell) == 1
    assert api.get(LEASE)["spec"]["holderIdentity"] == ""
