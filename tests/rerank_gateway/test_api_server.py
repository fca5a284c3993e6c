"""How the API server is found: in a pod, by kubeconfig, not at all."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from rerank_gateway import api_server
from rerank_gateway.api_server import NoApiServerError

AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUUb/9ZfLPZTE4zY1vtGjKGPAIzHAwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjYxMTIyMjAxOTIzWhgPMjEy
NjEwMjkyMDE5MjNaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEa3xyw+677H4RTjB61lBdSTF5UWgynsDR8nTph6iS
y1SjS78F6LjZl8sy8SQZTEiEbjR59vMSeZ6gchssygOl7aNTMFEwHQYDVR0OBBYE
FJTbhwrvnVet1Fp1NoMTe/66Ax/5MB8GA1UdIwQYMBaAFJTbhwrvnVet1Fp1NoMT
e/66Ax/5MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgQ33h+l0a
JwPe89pvx9RMbgQ/+v/0BQH9dBOq+ISEyHcCIDvIy/vUCtAmdZjydQMM8Q0a7hdl
8y1ZuIK8spC+fE95
-----END CERTIFICATE-----
"""


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    path = folder / "config"
    named = {
        "current-context": "here",
        "contexts": [
            {"name": "elsewhere", "context": {"cluster": "x", "user": "x"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(named))
    return path


def test_in_a_pod_the_token_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "_SERVICE_ACCOUNT", tmp_path)
    (tmp_path / "ca.crt").write_text(AUTHORITY)
    (tmp_path / "token").write_text("one")
    server = api_server.find({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
    assert server.url == "https://[fd00::1]:443"
    assert server.headers() == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two\n")
    assert server.headers() == {"Authorization": "Bearer two"}
    assert server.tls is not None
    assert [authority["subject"] for authority in server.tls.get_ca_certs()] == [
        ((("commonName", "test authority"),),)
    ]


@pytest.mark.parametrize(
    ("user", "headers"),
    [
        ({"token": "t"}, {"Authorization": "Bearer t"}),
        ({"tokenFile": "token"}, {"Authorization": "Bearer from the file"}),
        ({}, {}),
    ],
)
def test_a_kubeconfig(tmp_path: Path, user: dict[str, Any], headers: dict[str, str]) -> None:
    (tmp_path / "token").write_text("from the file")
    data = base64.b64encode(AUTHORITY.encode()).decode()
    cluster = {"server": "https://10.0.0.1:6443/", "certificate-authority-data": data}
    server = api_server.find({"KUBECONFIG": str(kubeconfig(tmp_path, cluster, user))})
    assert server.url == "https://10.0.0.1:6443"
    assert server.headers() == headers
    assert server.tls is not None
    assert server.tls.check_hostname


def test_files_of_a_kubeconfig_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(AUTHORITY)
    cluster = {"server": "https://x", "certificate-authority": "ca.pem"}
    server = api_server.from_kubeconfig(kubeconfig(tmp_path, cluster, {}))
    assert server.tls is not None
    assert len(server.tls.get_ca_certs()) == 1


def test_plain_http_needs_no_certificates(tmp_path: Path) -> None:
    assert api_server.from_kubeconfig(kubeconfig(tmp_path, {"server": "http://x:1"}, {})).tls is None


@pytest.mark.parametrize("user", [{"exec": {"command": "login"}}, {"auth-provider": {}}])
def test_login_programs_are_not_run(tmp_path: Path, user: dict[str, Any]) -> None:
    with pytest.raises(NoApiServerError, match="login programs"):
        api_server.from_kubeconfig(kubeconfig(tmp_path, {"server": "https://x"}, user))


@pytest.mark.parametrize("text", ["", "a: [", "current-context: x", "{current-context: x, contexts: []}"])
def test_a_broken_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(NoApiServerError, match="not a usable kubeconfig"):
        api_server.from_kubeconfig(tmp_path / "config")


def test_there_is_no_cluster_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoApiServerError, match="--config-dir"):
        api_server.find({"KUBECONFIG": str(tmp_path / "none")})
