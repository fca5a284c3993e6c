"""Models whose GPU is claimed (dynamic resource allocation): the real controller and scheduler decide.

Nothing but the driver is played: it publishes what devices a node has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.apiserver.api import Api, Object, eventually
from tests.apiserver.kubelet import Fleet, node
from tests.apiserver.models import COMMIT, apply_model, because, condition, model_path, settled
from tests.apiserver.operator_process import Operator
from tests.apiserver.test_gpus import placed

RESOURCE = "/apis/resource.k8s.io/v1"


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


@contextmanager
def device_node(api: Api, namespace: str, *, memory: str) -> Iterator[str]:
    """A node with one device of a class of the namespace's name, as a driver publishes it."""
    driver = f"gpu.{namespace}.example.com"
    with node(api, f"n.{namespace}") as name:
        device = {"name": "gpu-0", "capacity": {"memory": {"value": memory}}}
        pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
        made: dict[str, Object] = {
            "resourceslices": {"driver": driver, "nodeName": name, "pool": pool, "devices": [device]},
            "deviceclasses": {"selectors": [{"cel": {"expression": f'device.driver == "{driver}"'}}]},
        }
        for kind, spec in made.items():
            api.create(f"{RESOURCE}/{kind}", {"metadata": {"name": namespace}, "spec": spec})
        yield name
        for kind in made:
            api.delete(f"{RESOURCE}/{kind}/{namespace}")


def template(api: Api, namespace: str, name: str, *, at_least: str = "1Gi", device_class: str = "") -> None:
    """A ResourceClaimTemplate for one device with so much memory."""
    driver = f"gpu.{namespace}.example.com"
    enough = f'device.capacity["{driver}"].memory.isGreaterThan(quantity("{at_least}"))'
    exactly = {
        "deviceClassName": device_class or namespace,
        "selectors": [{"cel": {"expression": enough}}],
    }
    spec = {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}}
    path = f"{RESOURCE}/namespaces/{namespace}/resourceclaimtemplates"
    api.create(path, {"metadata": {"name": name}, "spec": spec})


def claiming(api: Api, namespace: str, name: str = "m", *, of: str) -> None:
    resources = {"gpu": {"resourceClaimTemplateName": of}, "cpu": "1", "memory": "1Gi"}
    apply_model(api, namespace, name, resources=resources)


def allocated(api: Api, namespace: str) -> list[Any]:
    """The devices that are allocated to pods of the namespace."""
    claims = api.items(f"{RESOURCE}/namespaces/{namespace}/resourceclaims")
    found = [claim.get("status", {}).get("allocation") for claim in claims]
    return [device["device"] for one in found if one for device in one["devices"]["results"]]


def test_the_only_device_is_claimed_and_the_next_replica_waits_for_it(api: Api, namespace: str) -> None:
    with device_node(api, namespace, memory="24Gi"):
        template(api, namespace, "gpu-20g", at_least="20Gi")
        template(api, namespace, "gpu-40g", at_least="40Gi")
        claiming(api, namespace, "first", of="gpu-20g")
        assert placed(api, namespace, "first") == "n"
        assert allocated(api, namespace) == ["gpu-0"]
        claiming(api, namespace, of="gpu-20g")
        words = 'no node has a free device as the ResourceClaimTemplate "gpu-20g" asks for it'
        message = because(api, namespace, "Scheduled", "NoDevice", words)
        assert message.endswith("(scheduler: 0/1 nodes are available: 1 cannot allocate all claims.)")
        claiming(api, namespace, "large", of="gpu-40g")
        settled(api, namespace, lambda b: condition(b, "Scheduled").get("reason") == "NoDevice", "large")

        api.merge(f"{model_path(namespace, 'first')}/scale", {"spec": {"replicas": 0}})
        fleet, pods = Fleet(api, namespace, COMMIT), f"/api/v1/namespaces/{namespace}/pods"
        mine = {"labelSelector": "rerank.dev/model=first"}
        eventually("the first one left", lambda: not fleet.end().api.items(pods, **mine))
        assert placed(api, namespace) == "n"
        settled(api, namespace, lambda b: condition(b, "Scheduled").get("status") == "True")


def test_a_template_that_is_not_there_is_named_and_waited_for(api: Api, namespace: str) -> None:
    with device_node(api, namespace, memory="24Gi"):
        claiming(api, namespace, of="gpu-20g")
        message = because(api, namespace, "Scheduled", "ResourceClaimTemplateNotFound")
        assert message == (
            'there is no ResourceClaimTemplate "gpu-20g" in this namespace;'
            " see spec.resources.gpu.resourceClaimTemplateName"
        )
        template(api, namespace, "gpu-20g")
        # The controller's pause grew while it tried: by now it may be as long as all of them together.
        assert placed(api, namespace, seconds=90) == "n"
        settled(api, namespace, lambda b: condition(b, "Scheduled").get("status") == "True")


def test_a_class_of_devices_that_is_not_there_is_named(api: Api, namespace: str) -> None:
    with node(api, f"n.{namespace}"):
        template(api, namespace, "gpu", device_class="gpu.nvidia.com")
        claiming(api, namespace, of="gpu")
        words = 'asks for the DeviceClass "gpu.nvidia.com", which does not exist'
        because(api, namespace, "Scheduled", "DeviceClassNotFound", words)
