"""How to reach the API server: from inside a pod, or from a kubeconfig. Used by `reflector.py` alone.

Own and small instead of the Kubernetes client: its models would cost more memory than ten thousand keys.
"""

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoApiServerError(Exception):
    """No usable way to an API server; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """`tls` None means plain HTTP. `token_file` is read anew for each request: kubelet rotates it."""

    url: str
    tls: ssl.SSLContext | None = None
    token: str | None = None
    token_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """The headers that authenticate a request.

        Raises:
            OSError: the token file cannot be read.
        """
        token = self.token_file.read_text(encoding="ascii").strip() if self.token_file else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def find(environment: Mapping[str, str]) -> ApiServer:
    """The API server of the pod that this runs in, else that of `KUBECONFIG`.

    Raises:
        NoApiServerError: there is neither.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if host and port and (_SERVICE_ACCOUNT / "token").exists():
        return ApiServer(
            url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            tls=ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt")),
            token_file=_SERVICE_ACCOUNT / "token",
        )
    path = Path(environment.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    try:
        return from_kubeconfig(path)
    except OSError as error:
        raise NoApiServerError(
            f"not in a pod with a service account, and no kubeconfig: {path}: {error.strerror}. "
            "Use --config-dir to run without Kubernetes."
        ) from error


def from_kubeconfig(path: Path) -> ApiServer:
    """The server of a kubeconfig's current context: certificates, tokens and token files.

    Raises:
        OSError: a file cannot be read.
        NoApiServerError: the kubeconfig is broken or asks for a login program.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = _named(config, "context", config["current-context"])
        cluster = _named(config, "cluster", context["cluster"])
        user = _named(config, "user", context["user"])
        if "exec" in user or "auth-provider" in user:
            raise NoApiServerError(f"{path}: login programs are not supported; use a token or a certificate")
        server = cluster["server"].rstrip("/")
        tls = _tls(cluster, user, path.parent) if server.startswith("https://") else None
        token_file = user.get("tokenFile")
        return ApiServer(
            url=server,
            tls=tls,
            token=user.get("token"),
            token_file=path.parent / token_file if token_file else None,
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise NoApiServerError(f"{path}: not a usable kubeconfig: {error!r}") from error


def _named(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in config[f"{kind}s"]:
        if entry["name"] == name:
            found: dict[str, Any] = entry[kind]
            return found
    raise KeyError(f"{kind} {name}")


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate", folder), _content(user, "client-key", folder)
    if certificate and key:
        with tempfile.NamedTemporaryFile() as both:  # the ssl module reads certificates from files only
            both.write(certificate + b"\n" + key)
            both.flush()
            context.load_cert_chain(both.name)
    return context


def _content(section: dict[str, Any], name: str, folder: Path) -> bytes | None:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data)
    file = section.get(name)
    return (folder / str(file)).read_bytes() if file else None
