"""The configuration that the parts are given."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from dev.cluster import binaries, gpu, leftovers, native, network
from dev.cluster.__main__ import chosen
from dev.cluster.certificates import Authority, KeyPair, Subject
from dev.cluster.errors import ClusterError
from dev.cluster.kubeconfig import kubeconfig, write_private
from dev.cluster.node import corefile
from dev.cluster.paths import Layout
from dev.cluster.temporary import free_ports


def openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *words], capture_output=True, text=True, check=True).stdout


def test_certificates_are_signed_by_the_authority_for_their_subject(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.create()
    pair = authority.issue("kubelet", Subject("system:node:a", "system:nodes", ("DNS:a", "IP:127.0.0.1")))
    openssl("verify", "-CAfile", authority.pair.certificate, pair.certificate)
    text = openssl("x509", "-in", pair.certificate, "-noout", "-text")
    assert "O = system:nodes" in text
    assert "CN = system:node:a" in text
    assert "DNS:a, IP Address:127.0.0.1" in text
    assert "CA:FALSE" in text
    assert pair.key.stat().st_mode & 0o777 == 0o600


def test_certificates_are_made_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.create()
    before = authority.issue("a", Subject("a")).certificate.read_bytes()
    authority.create()
    assert authority.issue("a", Subject("a")).certificate.read_bytes() == before


def test_a_kubeconfig_holds_its_keys_and_is_private(tmp_path: Path) -> None:
    pair = KeyPair(tmp_path / "crt", tmp_path / "key")
    pair.certificate.write_text("certificate")
    pair.key.write_text("key")
    path = tmp_path / "kubeconfig"
    write_private(path, kubeconfig("https://127.0.0.1:1", pair.certificate, pair))
    document = json.loads(path.read_text())
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert base64.b64decode(document["users"][0]["user"]["client-key-data"]) == b"key"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("resolvers", "asks"), [("nameserver 10.0.0.1\n", True), ("# none\n", False), ("", False)]
)
def test_dns_asks_outside_only_where_there_is_somebody_to_ask(resolvers: str, asks: bool) -> None:
    text = corefile("/kubeconfig", resolvers)
    assert ("forward" in text) is asks
    assert f"bind {network.ADDRESS}" in text


def test_pods_get_the_nodes_address_as_their_gateway() -> None:
    (plugin,) = json.loads(network.cni_config(Layout(Path("/x"))))["plugins"]
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.244.0.0/24", "gateway": "10.244.0.1"}]]
    assert plugin["hairpinMode"] is True


def test_pretended_gpus_come_and_go_with_their_labels() -> None:
    status, labels = (json.loads(patch) for patch in gpu.patches(2, "NVIDIA-L4", 23034))
    assert status["status"]["capacity"] == {"nvidia.com/gpu": "2"}
    assert labels["metadata"]["labels"]["nvidia.com/gpu.memory"] == "23034"
    status, labels = (json.loads(patch) for patch in gpu.patches(0, "NVIDIA-L4", 23034))
    assert status["status"]["allocatable"] == {"nvidia.com/gpu": None}
    assert set(labels["metadata"]["labels"].values()) == {None}


def test_mounts_below_a_folder_come_last_first_and_unescaped() -> None:
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/a rw",
        "2 1 0:1 / /state rw - tmpfs tmpfs rw",
        "3 2 0:2 / /state/a rw - tmpfs tmpfs rw",
        r"4 3 0:3 / /state/a/with\040space rw - tmpfs tmpfs rw",
        "5 1 0:4 / /state2/b rw - tmpfs tmpfs rw",
    ]
    assert leftovers.mounts_below(Path("/state"), "\n".join(lines)) == ["/state/a/with space", "/state/a"]


@pytest.mark.parametrize(
    ("text", "version"), [("go1.26.8", (1, 26)), ("go1.24rc1", (1, 24)), ("go1.25", (1, 25))]
)
def test_gos_version_is_read(text: str, version: tuple[int, int]) -> None:
    assert binaries.parse_version(text) == version


def test_the_programs_key_changes_with_compiler_and_sources(tmp_path: Path) -> None:
    source = tmp_path / "main.go"
    source.write_text("package main\n")
    first = binaries.content_key("go1.26.8", [source])
    assert first == binaries.content_key("go1.26.8", [source])
    assert first != binaries.content_key("go1.26.9", [source])
    source.write_text("package other\n")
    assert first != binaries.content_key("go1.26.8", [source])


def test_ports_are_free_and_differ() -> None:
    ports = free_ports()
    assert len(set(vars(ports).values())) == 5


def test_the_cluster_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "native")
    assert isinstance(chosen(), native.NativeCluster)
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(ClusterError, match="native, kind, current"):
        chosen()
