"""Kubeconfig files. They are written as JSON, which every YAML reader reads."""

import base64
import json
from pathlib import Path

from dev.cluster.certificates import KeyPair


def kubeconfig(server: str, authority: Path, client: KeyPair | str) -> str:
    """Return a kubeconfig that holds its keys itself, so that it works from any folder.

    Args:
        server: the API server's URL.
        authority: the certificate that signed the server's.
        client: whom to be: a certificate, or the token of a service account.
    """

    def embedded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": embedded(authority)}
    if isinstance(client, str):
        user = {"token": client}
    else:
        user = {
            "client-certificate-data": embedded(client.certificate),
            "client-key-data": embedded(client.key),
        }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rerank", "cluster": cluster}],
        "users": [{"name": "rerank", "user": user}],
        "contexts": [{"name": "rerank", "context": {"cluster": "rerank", "user": "rerank"}}],
        "current-context": "rerank",
    }
    return json.dumps(document, indent=1)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
