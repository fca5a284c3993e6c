"""One scenario in a namespace of its own, from first apply to last delete; its operator may be killed.

An operator for each world, which sees this namespace alone and has its Lease, its backend token and its
catalog entry to itself: so many worlds live side by side on one API server. A killed one is started again,
as a kubelet does.
"""

import base64
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rerank_api import keys
from rerank_api.api_key import APIKey
from tests.apiserver import crash_state
from tests.apiserver.api import RERANK, Answer, Object, Refused, catalog_entry, eventually
from tests.apiserver.crash_state import TOKEN_SECRET, accepted
from tests.apiserver.deadly import Deadly
from tests.apiserver.gateway_port import CALM, GatewayPort
from tests.apiserver.kubelet import Fleet
from tests.apiserver.lone_operator import Ground, LoneOperator
from tests.apiserver.models import COMMIT, apply_model, model_path

_STEP_SECONDS = 120.0
_MOST_UNASKED_ENDS = 5


class CrashWorld:
    """See the module. `run` plays the scenario, `state` tells what is there, `close` removes it all.

    Attributes:
        deadly: where the operator is killed.
        moments: seconds from when an operator is at work until it is killed, for one after the other.
        unasked_ends: operators that ended by themselves.
    """

    def __init__(self, ground: Ground, name: str) -> None:
        self.api = ground.api
        self.name = name
        self.deadly = Deadly(self._kill, namespace=name)
        self.moments: Iterator[float] = iter(())
        self.unasked_ends = 0
        self._entry = f"entry-{name}"
        self._port = GatewayPort()
        self._fleet = Fleet(ground.api, name, COMMIT)
        folder = ground.folder / name
        self._mounted = folder / "backend-token"
        catalog = folder / "catalog"
        environment = {
            "RERANK_CATALOG_DIR": str(catalog),
            "RERANK_GATEWAY_PEERS": self._port.address,
            "RERANK_USAGE_POLL_SECONDS": "0.3",
            "RERANK_USAGE_WRITE_SECONDS": "0.3",
            "RERANK_BACKEND_TOKEN_FILE": str(self._mounted),
            "RERANK_BACKEND_TOKEN_SECRET": TOKEN_SECRET,
        }
        self._lone = LoneOperator(ground, name, environment)
        catalog.mkdir()
        (catalog / "entry.json").write_text(json.dumps(catalog_entry(self._entry)))
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def open(self) -> None:
        """Start the operator."""
        self._lone.proxy.fault = self.deadly
        self._lone.prepare()
        self._lone.start()
        self._supervisor.start()

    def close(self) -> None:
        """End the operator and remove everything."""
        self._over.set()
        self._supervisor.join()
        self._lone.close()
        self._port.close()
        self._fleet.close()
        with suppress(Refused):  # it did not come to that
            self.api.delete(f"{RERANK}/catalogmodels/{self._entry}")
        self._fleet.end(everything=True)

    def state(self) -> Object:
        """What is there."""
        return crash_state.state(self.api, self.name, system=self._lone.system, entry=self._entry)

    def told(self) -> Counter[str]:
        """The news that were told, and how often."""
        return crash_state.told(self.api, self.name)

    # The operator's life

    def _kill(self) -> None:
        process = self._lone.operator.process
        if process is not None:
            process.send_signal(signal.SIGKILL)

    def _supervise(self) -> None:
        """Start the operator again whenever it ended, and kill it at the moments that were asked for."""
        doom: float | None = None
        try:
            while not self._over.wait(0.02):
                process = self._lone.operator.process
                assert process is not None
                if process.poll() is not None:
                    self._start_again()
                    doom = None
                elif doom is None and self.deadly.at_work:
                    doom = time.monotonic() + next(self.moments, float("inf"))
                elif doom is not None and not self.deadly.shut and time.monotonic() > doom:
                    self.deadly.strike("at a moment")
        except BaseException as error:  # noqa: BLE001  # told by the thread that waits
            self._error = error

    def _start_again(self) -> None:
        if not self.deadly.shut:
            self.unasked_ends += 1
            assert self.unasked_ends < _MOST_UNASKED_ENDS, "the operator ends and ends"
        self.deadly.reopen()
        self._lone.start_again()
        if self.deadly.shut:  # by what the former one had asked: while there was nobody to kill
            self._kill()

    # The scenario

    def run(self) -> None:
        """Play it. Each step waits until the operator has done all that the one before asks for."""
        self._begin()
        self._scale_up()
        self._roll_out()
        self._take_away()
        shown = f"/api/v1/namespaces/{self.name}/secrets/shown"
        self._until("the shown key's Secret is gone", lambda: self.api.find(shown) is None)
        self._settled()

    def _begin(self) -> None:
        self._until("the entry is there", lambda: self.api.find(f"{RERANK}/catalogmodels/{self._entry}"))
        self._apply_model("m")
        self._apply_model("auto", autoscaling={"maxReplicas": 3})
        self._apply_model("listed", model={"catalog": self._entry}, replicas=0)
        self._apply_key("k")
        self._apply_key("named", secret={"name": "first-name"})
        self._apply_key("shown", secret={"ttlSeconds": 10})
        self._apply_key("own", hashes=[{"sha256": keys.digest(self.name)}])
        self._settled()
        self._port.use(self._key("k"), 2)
        self._until("the usage is written", lambda: self._usage() == 2)

    def _scale_up(self) -> None:
        load = {**CALM, "queuedTokens": 3000, "runningTokens": 200, "idleSeconds": 0}
        self._port.loads[self.name, "auto"] = load
        auto = model_path(self.name, "auto")
        self._until("three replicas serve", lambda: self.api.get(auto)["status"].get("ready") == "3/3")
        self._settled()

    def _roll_out(self) -> None:
        resources = {"gpu": {"count": 0}, "cpu": "100m", "memory": "2Gi"}
        self._apply_model("m", aliases=["other"], resources=resources)
        self._apply_key("k", version=2, overlapSeconds=1)
        self._apply_key("named", secret={"name": "second-name"})
        self._settled()
        self._until("the former key's time is over", lambda: self._has_one_key("k"))

    def _take_away(self) -> None:
        self._apply_model("auto")
        self._apply_key("named", secret={"name": "second-name"}, version=2, overlapSeconds=1)
        self.api.delete(model_path(self.name, "listed"))
        self.api.delete(self._key_path("own"))
        self._settled()
        self._until("the former keys' time is over", lambda: self._has_one_key("named"))

    def _settled(self) -> None:
        """Return when every status is of the newest spec, and all that is wanted runs and serves."""
        self._until("all is settled", self._is_settled)

    def _is_settled(self) -> bool:
        ours = f"{RERANK}/namespaces/{self.name}"
        models, known = self.api.items(f"{ours}/modeldeployments"), self.api.items(f"{ours}/apikeys")
        if not all(map(_is_up_to_date, models + known)):
            return False
        deployments = self.api.items(f"/apis/apps/v1/namespaces/{self.name}/deployments")
        return (
            all(model["status"]["phase"] in {"Ready", "Idle"} for model in models)
            and {f"rerank-{model['metadata']['name']}" for model in models}
            == {deployment["metadata"]["name"] for deployment in deployments}
            and all(map(_is_up_to_date, deployments))
            and all(map(_serves, deployments))
        )

    def _until(self, what: str, look: Callable[[], Answer | None]) -> Answer:
        """Wait for it, and play the kubelet meanwhile."""

        def one() -> Answer | None:
            if self._error is not None:
                raise self._error
            self._mount()
            with suppress(Refused):  # a pod that was there a moment ago
                self._fleet.step()
            return look()

        try:
            return eventually(what, one, seconds=_STEP_SECONDS, pause=0.25)
        except AssertionError as error:
            told = [f"killed {self.deadly.kills}", f"shut {self.deadly.shut}", *self._of_process()]
            told.append(f"log: {self._lone.operator.log()[-3000:]}")
            raise AssertionError("; ".join([str(error), *told])) from None

    def _of_process(self) -> Iterator[str]:
        """What the kernel tells of the operator's process."""
        process = self._lone.operator.process
        if process is None:
            yield "no process"
            return
        yield f"process {process.pid}, ended: {process.poll()}"
        for file in ("stat", "wchan", "syscall"):
            with suppress(OSError):
                yield f"{file}: {Path(f'/proc/{process.pid}/{file}').read_text()}"

    def _mount(self) -> None:
        """Mount the backend token's Secret, as soon as there is one."""
        if not self._mounted.exists():
            secret = self.api.find(f"/api/v1/namespaces/{self._lone.system}/secrets/{TOKEN_SECRET}")
            if secret is not None:
                self._mounted.write_bytes(base64.b64decode(secret["data"]["master"]))

    def _apply_model(self, name: str, **spec: Any) -> None:
        apply_model(self.api, self.name, name, **spec)

    def _apply_key(self, name: str, **spec: Any) -> None:
        body = {"apiVersion": "rerank.dev/v1alpha1", "kind": "APIKey", "metadata": {"name": name}}
        self.api.apply(self._key_path(name), {**body, "spec": spec})

    def _key_path(self, name: str) -> str:
        return f"{RERANK}/namespaces/{self.name}/apikeys/{name}"

    def _key(self, name: str) -> Object:
        return self.api.get(self._key_path(name))

    def _has_one_key(self, name: str) -> bool:
        """Whether one is accepted, and the status says so, which it does a moment after the others ended."""
        key = self._key(name)
        told = [condition["message"] for condition in key["status"]["conditions"]]
        return len(accepted(key)) == 1 and any(each.startswith("1 key is accepted") for each in told)

    def _usage(self) -> int:
        usage = APIKey.parse(self._key("k")).status.usage
        return usage.requests if usage else 0


def _is_up_to_date(body: Object) -> bool:
    return bool(body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"])


def _serves(deployment: Object) -> bool:
    """Whether all replicas that are wanted, and no others, are there, of the newest revision, and ready."""
    counts = {deployment["status"].get(part, 0) for part in ("replicas", "updatedReplicas", "readyReplicas")}
    return counts == {deployment["spec"]["replicas"]}


@contextmanager
def crash_world(ground: Ground, name: str) -> Iterator[CrashWorld]:
    """A world with its operator running, removed at the end."""
    world = CrashWorld(ground, name)
    world.open()
    try:
        yield world
    finally:
        world.close()
