"""The operator's settings: read once from the environment by `main`, passed on as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from rerank_operator.policy import Policy

LOG_LEVELS: Final = ("info", "warning", "error")


class ConfigError(ValueError):
    """A setting is missing or wrong; the message names the variable and what it should be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was installed with. Empty `watch_namespaces` means all namespaces.

    `policy` is what models may ask for; `network_policies` says whether they get a NetworkPolicy.
    `catalog_directory` holds the built-in catalog entries. Without `catalog_models` they are all that there
    is: CatalogModels belong to no namespace, and an operator that has rights in namespaces only cannot read
    them. `gateways_host` has an address for each gateway, whose internal port is `gateways_port`; each is
    asked for usage every `usage_poll_seconds`, and a key's usage is written every `usage_write_seconds` at
    most. `log_level` is the least severe level that is logged.
    """

    namespace: str
    pod_name: str
    watch_namespaces: tuple[str, ...]
    runtime_image_cpu: str
    runtime_image_cuda: str
    image_pull_policy: str
    hub_endpoint: str | None
    gateway_url: str
    backend_token_file: Path
    backend_token_secret: str
    lease_name: str
    policy: Policy = field(default_factory=Policy)
    network_policies: bool = True
    catalog_directory: Path | None = None
    gateways_host: str = "rerank-gateway-peers"
    gateways_port: int = 8081
    usage_poll_seconds: float = 10.0
    usage_write_seconds: float = 60.0
    catalog_models: bool = True
    log_level: str = "info"


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        ConfigError: a variable is missing or has a value that cannot work.
    """

    def required(name: str) -> str:
        value = environment.get(name, "").strip()
        if not value:
            raise ConfigError(f"{name} is not set; the chart sets it in the operator's Deployment")
        return value

    endpoint = environment.get("RERANK_HF_ENDPOINT", "").strip() or None
    for name, url in (
        ("RERANK_HF_ENDPOINT", endpoint),
        ("RERANK_GATEWAY_URL", required("RERANK_GATEWAY_URL")),
    ):
        if url is not None and not _is_http_url(url):
            raise ConfigError(f"{name} is {url!r}; use an http:// or https:// address")
    catalog = environment.get("RERANK_CATALOG_DIR", "").strip()
    namespaces = (name.strip() for name in environment.get("RERANK_WATCH_NAMESPACES", "").split(","))
    peers = (
        environment.get("RERANK_GATEWAY_PEERS", "").strip()
        or f"rerank-gateway-peers.{required('RERANK_NAMESPACE')}:8081"
    )
    host, _, port = peers.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"RERANK_GATEWAY_PEERS is {peers!r}; use host:port")
    return Settings(
        namespace=required("RERANK_NAMESPACE"),
        pod_name=required("RERANK_POD_NAME"),
        watch_namespaces=tuple(sorted({name for name in namespaces if name})),
        runtime_image_cpu=required("RERANK_RUNTIME_IMAGE_CPU"),
        runtime_image_cuda=required("RERANK_RUNTIME_IMAGE_CUDA"),
        image_pull_policy=_one_of(
            environment, "RERANK_IMAGE_PULL_POLICY", ("IfNotPresent", "Always", "Never")
        ),
        hub_endpoint=endpoint,
        gateway_url=required("RERANK_GATEWAY_URL"),
        backend_token_file=Path(required("RERANK_BACKEND_TOKEN_FILE")),
        backend_token_secret=environment.get("RERANK_BACKEND_TOKEN_SECRET", "").strip()
        or "rerank-backend-token",
        lease_name=environment.get("RERANK_LEASE_NAME", "").strip() or "rerank-operator",
        policy=_policy(environment.get("RERANK_POLICY", "").strip()),
        network_policies=_one_of(environment, "RERANK_NETWORK_POLICIES", ("true", "false")) == "true",
        catalog_directory=Path(catalog) if catalog else None,
        gateways_host=host.strip("[]"),
        gateways_port=int(port),
        usage_poll_seconds=_seconds(environment, "RERANK_USAGE_POLL_SECONDS", 10.0),
        usage_write_seconds=_seconds(environment, "RERANK_USAGE_WRITE_SECONDS", 60.0),
        catalog_models=_one_of(environment, "RERANK_CATALOG_MODELS", ("true", "false")) == "true",
        log_level=_one_of(environment, "RERANK_LOG_LEVEL", LOG_LEVELS),
    )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86400:
        raise ConfigError(f"{name} is {text!r}; use a number of seconds from 0.1 to 86400")
    return value


def _one_of(environment: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    """The variable's value, by default the first of those that it may have."""
    value = environment.get(name, "").strip() or values[0]
    if value not in values:
        raise ConfigError(f"{name} is {value!r}; use {', '.join(values[:-1])} or {values[-1]}")
    return value


def _policy(text: str) -> Policy:
    """`policy` of the chart, as JSON."""
    try:
        return Policy.model_validate_json(text) if text else Policy()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(["policy", *map(str, first["loc"])])
        raise ConfigError(f"RERANK_POLICY is wrong at {where}: {first['msg']}") from None


def _is_http_url(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
