"""What the gateway keeps of each Kubernetes object: small frozen records, read from the object's JSON.

Ten thousand keys live in memory, so everything that no decision needs is dropped here. The API server has
validated the objects; parsing fails (ValueError, KeyError, TypeError) only on what never passed a CRD.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from rerank_api import keys
from rerank_api.model_names import Claim, claims, qualified, repo_of
from rerank_api.names import GATEWAY_PEERS_LABEL, HTTP_PORT_NAME, INTERNAL_PORT_NAME, MODEL_LABEL
from rerank_gateway.limits import Limits

Json = dict[str, Any]


class Kind(Enum):
    """What decides what the gateway does: three kinds of objects, one of them in two roles."""

    API_KEY = "APIKey"
    MODEL = "ModelDeployment"
    SLICE = "EndpointSlice"
    PEERS = "EndpointSlice of gateways"


class ObjectId(NamedTuple):
    """One object of a kind."""

    namespace: str
    name: str


class Address(NamedTuple):
    """Where a replica listens: an IP address and a TCP port."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """Both, as they stand in a URL (RFC 3986 §3.2)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class KeyHash:
    """One accepted key: SHA-256 in hex, valid for `not_before` ≤ now < `expires_at` (Unix seconds)."""

    sha256: str
    key_id: str
    not_before: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An APIKey. `models` None: all that its namespace may call. `expires_at`: Unix seconds, or inf.

    `uid` tells it from a later one of the same name; empty in a folder. `limits` None: nothing is limited.
    """

    id: ObjectId
    uid: str
    created: float
    key_id: str
    hashes: tuple[KeyHash, ...]
    models: frozenset[str] | None
    expires_at: float
    disabled: bool
    limits: Limits | None = None

    def allows(self, model: "ModelRecord") -> bool:
        """Whether the key may call a model that its namespace may call.

        One of another namespace is allowed by its qualified name alone: so nobody gets to be called by
        sharing a model under a name that the key lists.
        """
        if self.models is None or qualified(*model.id) in self.models:
            return True
        return model.id.namespace == self.id.namespace and not self.models.isdisjoint(model.names)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A ModelDeployment.

    Attributes:
        names: its own, aliases, repository.
        context_length: in tokens.
        wanted: it has replicas, or will have them when it is asked for.
        failed: it cannot start until somebody changes something.
        listwise: it reads all documents of a request together.
        prefix_caching: its replicas need not read again what they read before with the same query.
        cache_scores: its owner wants scores kept.
        shared_with: the other namespaces whose keys may call it.
    """

    id: ObjectId
    created: float
    names: tuple[str, ...]
    aliases: tuple[str, ...]
    repo: str | None
    context_length: int | None
    shared_with: tuple[str, ...] = ()
    wanted: bool = True
    failed: bool = False
    listwise: bool = False
    prefix_caching: bool = False
    cache_scores: bool = False

    def seen_from(self, namespace: str) -> str:
        """Its own name, with its namespace before it where that is another one."""
        return self.id.name if self.id.namespace == namespace else qualified(*self.id)

    def claims(self) -> Iterator[Claim]:
        """Every name under which it may be asked for, by namespace."""
        return claims(*self.id, aliases=self.aliases, repo=self.repo, shared_with=self.shared_with)


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """An EndpointSlice of one model's Service: the addresses that may get requests now."""

    id: ObjectId
    model: str
    ready: tuple[Address, ...]


class Peer(NamedTuple):
    """A gateway's internal port. `serving`: its pod is ready and not about to end."""

    address: Address
    serving: bool


@dataclass(frozen=True, slots=True)
class PeersRecord:
    """An EndpointSlice of the gateways' own Service, those included that are not ready yet."""

    id: ObjectId
    peers: tuple[Peer, ...]


Record = KeyRecord | ModelRecord | SliceRecord | PeersRecord


def kind_of(body: Json) -> Kind:
    """The kind of an object that says it itself.

    Raises:
        ValueError, KeyError, TypeError: it is none that the gateway knows.
    """
    kind = Kind(body["kind"])
    labels = body["metadata"].get("labels") or {}
    return Kind.PEERS if kind is Kind.SLICE and GATEWAY_PEERS_LABEL in labels else kind


def parse(kind: Kind, body: Json) -> Record:
    """The record of an object as the API server prints it.

    Raises:
        ValueError: the object does not look like its kind.
    """
    try:
        if kind is Kind.API_KEY:
            return _key(body)
        if kind is Kind.MODEL:
            return _model(body)
        return _slice(body) if kind is Kind.SLICE else _peers(body)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a valid {kind.value}: {error!r}") from error


def object_id(body: Json) -> ObjectId:
    """Raises KeyError or TypeError where there is no metadata."""
    metadata = body["metadata"]
    return ObjectId(metadata["namespace"], metadata["name"])


def _key(body: Json) -> KeyRecord:
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    models = spec.get("models")
    # Keys of the user's own need no operator: what the spec lists counts at once, and nothing else.
    hashes = tuple(_hash(entry) for entry in spec.get("hashes") or status.get("hashes") or ())
    return KeyRecord(
        id=object_id(body),
        uid=metadata.get("uid") or "",
        created=_time(metadata.get("creationTimestamp"), absent=0.0),
        key_id=status.get("keyId") or (hashes[-1].key_id if hashes else ""),
        hashes=hashes,
        models=None if models is None else frozenset(models),
        expires_at=_time(spec.get("expiresAt"), absent=math.inf),
        # A key that is being deleted is as good as gone, whatever finalizer still holds the object.
        disabled=bool(spec.get("disabled")) or metadata.get("deletionTimestamp") is not None,
        limits=Limits.parse(spec.get("limits")),
    )


def _hash(entry: Json) -> KeyHash:
    return KeyHash(
        sha256=entry["sha256"],
        key_id=entry.get("keyId") or keys.brought_id(entry["sha256"]),
        not_before=_time(entry.get("notBefore"), absent=0.0),
        expires_at=_time(entry.get("expiresAt"), absent=math.inf),
    )


def _model(body: Json) -> ModelRecord:
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    model = status.get("model") or {}
    repo = repo_of(spec, status)
    failed = status.get("phase") == "Failed"
    aliases = tuple(spec.get("aliases") or ())
    names = (metadata["name"], *aliases, *((repo,) if repo else ()))
    length = model.get("contextLength")
    return ModelRecord(
        id=object_id(body),
        created=_time(metadata.get("creationTimestamp"), absent=0.0),
        names=tuple(dict.fromkeys(names)),
        aliases=aliases,
        repo=repo,
        shared_with=tuple((spec.get("access") or {}).get("namespaces") or ()),
        context_length=length if isinstance(length, int) and length > 1 else None,
        wanted=not failed and (spec.get("replicas") != 0 or spec.get("autoscaling") is not None),
        failed=failed,
        listwise=(model.get("scoring") or {}).get("pointwise") is False,
        prefix_caching=model.get("prefixCaching") is True,
        cache_scores=_cache_scores(spec, status),
    )


def _cache_scores(spec: Json, status: Json) -> bool:
    """As the spec says, else as the catalog's entry does, which stands in the status alone."""
    own = (spec.get("scoring") or {}).get("cacheScores")
    effective = (status.get("effective") or {}).get("scoring") or {}
    return bool(effective.get("cacheScores") if own is None else own)


def _slice(body: Json) -> SliceRecord:
    labels = body["metadata"].get("labels") or {}
    # Absent `ready` means ready, absent `terminating` means not (discovery.k8s.io/v1).
    ready = (
        address
        for address, conditions in _endpoints(body, HTTP_PORT_NAME)
        if conditions.get("ready", True) is not False and not conditions.get("terminating")
    )
    return SliceRecord(id=object_id(body), model=labels.get(MODEL_LABEL, ""), ready=tuple(ready))


def _peers(body: Json) -> PeersRecord:
    # The Service publishes pods that are not ready, as `ready`: `serving` is what their probe says.
    peers = (
        Peer(address, conditions.get("serving", True) is not False and not conditions.get("terminating"))
        for address, conditions in _endpoints(body, INTERNAL_PORT_NAME)
    )
    return PeersRecord(id=object_id(body), peers=tuple(peers))


def _endpoints(body: Json, port_name: str) -> Iterator[tuple[Address, Json]]:
    port = next((p["port"] for p in body.get("ports") or () if p.get("name") == port_name), None)
    if port is not None and body.get("addressType") in ("IPv4", "IPv6"):
        for endpoint in body.get("endpoints") or ():
            for host in endpoint["addresses"]:
                yield Address(host, int(port)), endpoint.get("conditions") or {}


def _time(text: str | None, *, absent: float) -> float:
    return absent if text is None else datetime.fromisoformat(text).timestamp()
