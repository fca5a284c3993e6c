"""Settings from the environment: complete, or refused with the variable's name."""

import json
from pathlib import Path

import pytest

from rerank_operator.config import ConfigError, Settings, from_environment
from rerank_operator.policy import Policy

COMPLETE = {
    "RERANK_NAMESPACE": "rerank-system",
    "RERANK_POD_NAME": "rerank-operator-0",
    "RERANK_WATCH_NAMESPACES": "",
    "RERANK_RUNTIME_IMAGE_CPU": "rerank-runtime:0.1.0-cpu",
    "RERANK_RUNTIME_IMAGE_CUDA": "rerank-runtime:0.1.0-cuda",
    "RERANK_GATEWAY_URL": "http://rerank-gateway.rerank-system/v1/rerank",
    "RERANK_BACKEND_TOKEN_FILE": "/var/run/rerank/master",
}


def test_what_is_not_set_has_a_default() -> None:
    assert from_environment(COMPLETE) == Settings(
        namespace="rerank-system",
        pod_name="rerank-operator-0",
        watch_namespaces=(),
        runtime_image_cpu="rerank-runtime:0.1.0-cpu",
        runtime_image_cuda="rerank-runtime:0.1.0-cuda",
        image_pull_policy="IfNotPresent",
        hub_endpoint=None,
        gateway_url="http://rerank-gateway.rerank-system/v1/rerank",
        backend_token_file=Path("/var/run/rerank/master"),
        backend_token_secret="rerank-backend-token",
        lease_name="rerank-operator",
        gateways_host="rerank-gateway-peers.rerank-system",
        gateways_port=8081,
        usage_poll_seconds=10,
        usage_write_seconds=60,
    )


@pytest.mark.parametrize(
    ("peers", "host", "port"),
    [("gateways.a:80", "gateways.a", 80), ("[::1]:9", "::1", 9), ("10.0.0.1:1", "10.0.0.1", 1)],
)
def test_the_gateways_are_somewhere_else(peers: str, host: str, port: int) -> None:
    found = from_environment({**COMPLETE, "RERANK_GATEWAY_PEERS": peers, "RERANK_USAGE_POLL_SECONDS": "2.5"})
    assert (found.gateways_host, found.gateways_port, found.usage_poll_seconds) == (host, port, 2.5)


def test_the_policy_is_the_chart_s_value() -> None:
    assert from_environment(COMPLETE).policy == Policy()
    listed = [f"org/name@{'0' * 40}", f"a.b/c-d_e@{'f' * 40}"]
    text = json.dumps({"remoteCode": listed, "images": ["r.example/"], "licenses": None, "maxReplicas": 4})
    found = from_environment({**COMPLETE, "RERANK_POLICY": text}).policy
    assert found == Policy(remote_code=frozenset(listed), images=frozenset({"r.example/"}), max_replicas=4)


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        ('{"remoteCode": ["org/name"]}', r"policy\.remoteCode"),
        (f'{{"remoteCode": ["org/name@{"0" * 41}"]}}', r"policy\.remoteCode"),
        ('{"extraArgs": ["max-num-seqs"]}', r"policy\.extraArgs"),
        ('{"maxReplicas": "many"}', r"policy\.maxReplicas"),
        ('{"image": []}', r"policy\.image"),
        ("images", "policy"),
    ],
)
def test_a_wrong_policy_is_named(policy: str, where: str) -> None:
    with pytest.raises(ConfigError, match=f"RERANK_POLICY is wrong at {where}"):
        from_environment({**COMPLETE, "RERANK_POLICY": policy})


def test_the_catalog_is_a_directory() -> None:
    assert from_environment({**COMPLETE, "RERANK_CATALOG_DIR": " "}).catalog_directory is None
    found = from_environment({**COMPLETE, "RERANK_CATALOG_DIR": "/etc/rerank/catalog"})
    assert found.catalog_directory == Path("/etc/rerank/catalog")


def test_the_catalog_s_own_objects_may_be_out_of_reach() -> None:
    assert from_environment({**COMPLETE, "RERANK_CATALOG_MODELS": "false"}).catalog_models is False


@pytest.mark.parametrize(
    "name",
    [
        "RERANK_LOG_LEVEL",
        "RERANK_CATALOG_MODELS",
        "RERANK_NETWORK_POLICIES",
        "RERANK_IMAGE_PULL_POLICY",
    ],
)
def test_a_choice_is_one_of_some_words(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is 'loud'; use \\w+(, \\w+)? or \\w+$"):
        from_environment({**COMPLETE, name: "loud"})


def test_network_policies_are_made_unless_refused() -> None:
    assert from_environment(COMPLETE).network_policies
    assert not from_environment({**COMPLETE, "RERANK_NETWORK_POLICIES": "false"}).network_policies


def test_namespaces_are_a_list() -> None:
    found = from_environment({**COMPLETE, "RERANK_WATCH_NAMESPACES": "b, a,,b"})
    assert found.watch_namespaces == ("a", "b")


@pytest.mark.parametrize("name", [name for name in COMPLETE if name != "RERANK_WATCH_NAMESPACES"])
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        from_environment({**COMPLETE, name: " "})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RERANK_IMAGE_PULL_POLICY", "Sometimes"),
        ("RERANK_HF_ENDPOINT", "hub.example.com"),
        ("RERANK_HF_ENDPOINT", "https://me:pw@hub.example.com"),
        ("RERANK_GATEWAY_URL", "gateway"),
        ("RERANK_GATEWAY_PEERS", "gateways"),
        ("RERANK_GATEWAY_PEERS", "gateways:http"),
        ("RERANK_GATEWAY_PEERS", ":80"),
        ("RERANK_GATEWAY_PEERS", "gateways:70000"),
        ("RERANK_USAGE_POLL_SECONDS", "often"),
        ("RERANK_USAGE_POLL_SECONDS", "0"),
        ("RERANK_USAGE_WRITE_SECONDS", "nan"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        from_environment({**COMPLETE, name: value})
