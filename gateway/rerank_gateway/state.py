"""Everything that the gateway knows of the cluster, indexed for one look-up per question.

Sources (`reflector.py`, `folder.py`) write, the data path reads. One event loop, and no await between a
read and its use, so a plain dict is consistent. Updates cost what changed, never what is there.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple, TypeVar

from rerank_api.model_names import Rank
from rerank_gateway.balancer import Replica
from rerank_gateway.records import (
    Address,
    KeyHash,
    KeyRecord,
    Kind,
    ModelRecord,
    ObjectId,
    Peer,
    PeersRecord,
    Record,
    SliceRecord,
)

_K = TypeVar("_K")
_V = TypeVar("_V")


class KnownKey(NamedTuple):
    """A digest that some APIKey accepts, with the APIKey and the validity of this digest."""

    hash: KeyHash
    key: KeyRecord


class _Claim(NamedTuple):
    """A model's claim to a name in a namespace. Claims sort by strength: how it is named, age, id."""

    rank: Rank
    created: float
    model: ObjectId


class State:
    """The indexes. `removed` is told of each replica that is no longer to be called, `changed` of each model
    that is not what it was, or has other replicas.
    """

    def __init__(
        self,
        removed: Callable[[Replica], None] = lambda _: None,
        changed: Callable[[ObjectId], None] = lambda _: None,
    ) -> None:
        self._removed = removed
        self._changed = changed
        self._objects: dict[Kind, dict[ObjectId, Record]] = {kind: {} for kind in Kind}
        self._keys: dict[str, tuple[KnownKey, ...]] = {}
        self._names: dict[ObjectId, tuple[_Claim, ...]] = {}
        self._models: dict[str, dict[ObjectId, ModelRecord]] = {}
        self._slices: dict[ObjectId, dict[str, SliceRecord]] = {}
        self._replicas: dict[ObjectId, dict[Address, Replica]] = {}
        self._ready: dict[ObjectId, tuple[Replica, ...]] = {}
        self._peers: tuple[Peer, ...] = ()

    # Questions of the data path

    def keys(self, sha256: str) -> tuple[KnownKey, ...]:
        """The APIKeys that list this digest, oldest first. Two can: a copied status names the same hash."""
        return self._keys.get(sha256, ())

    def resolve(self, namespace: str, name: str) -> ModelRecord | None:
        """The model that `name` means in `namespace`: `rerank_api.model_names` has the order.

        Among equals the oldest wins, then the first by namespace and name: no newcomer takes over a name.
        """
        claims = self._names.get(ObjectId(namespace, name))
        if not claims:
            return None
        model = claims[0].model
        return self._models[model.namespace][model]

    def model(self, identity: ObjectId) -> ModelRecord | None:
        """A model by its own name."""
        return self._models.get(identity.namespace, {}).get(identity)

    def models(self, namespace: str) -> list[ModelRecord]:
        """The models that keys of the namespace may call: its own by name, then those shared with it."""
        found = self._models.get(namespace, {}).values()
        return sorted(found, key=lambda model: (model.id.namespace != namespace, model.id))

    def replicas(self, model: ObjectId) -> tuple[Replica, ...]:
        """The ready replicas of a model."""
        return self._ready.get(model, ())

    def exists(self, key: KeyRecord) -> bool:
        """Whether the APIKey is still there, in whatever state, and not another one of its name."""
        found = self._objects[Kind.API_KEY].get(key.id)
        return isinstance(found, KeyRecord) and found.uid == key.uid

    def all_models(self) -> list[ModelRecord]:
        """The models of all namespaces."""
        return [model for models in self._models.values() for model in models.values()]

    def peers(self) -> tuple[Peer, ...]:
        """The gateways, this one among them."""
        return self._peers

    def count(self, kind: Kind) -> int:
        return len(self._objects[kind])

    # What the sources do

    def put(self, kind: Kind, record: Record) -> None:
        """Add an object or replace its former state."""
        old = self._objects[kind].get(record.id)
        if old == record:
            return
        self._objects[kind][record.id] = record
        self._index(old, record)

    def remove(self, kind: Kind, identity: ObjectId) -> None:
        """Forget an object. Forgetting what is not there is fine."""
        old = self._objects[kind].pop(identity, None)
        if old is not None:
            self._index(old, None)

    def replace(self, kind: Kind, records: Iterable[Record], *, namespace: str | None = None) -> None:
        """Make `records` all there is of a kind (in one namespace, or everywhere): what is not listed goes.

        This is what heals a lost DELETE: a relist says what exists, and nothing else does.
        """
        listed = {record.id: record for record in records}
        for record in listed.values():  # first, so that an address that moves between slices stays
            self.put(kind, record)
        vanished = [
            identity
            for identity in self._objects[kind]
            if identity not in listed and namespace in (None, identity.namespace)
        ]
        for identity in vanished:
            self.remove(kind, identity)

    # Indexes

    def _index(self, old: Record | None, new: Record | None) -> None:
        if isinstance(old, KeyRecord):
            self._drop_key(old)
        elif isinstance(old, ModelRecord):
            self._drop_model(old)
        elif isinstance(old, SliceRecord):
            self._drop_slice(old)
        if isinstance(new, KeyRecord):
            self._add_key(new)
        elif isinstance(new, ModelRecord):
            self._add_model(new)
        elif isinstance(new, SliceRecord):
            self._add_slice(new)
        if isinstance(old, PeersRecord) or isinstance(new, PeersRecord):
            gateways = [r for r in self._objects[Kind.PEERS].values() if isinstance(r, PeersRecord)]
            self._peers = tuple(dict.fromkeys(peer for record in gateways for peer in record.peers))
        self._follow([record for record in (old, new) if record is not None])

    def _follow(self, records: Iterable[Record]) -> None:
        """Bring up to date what depends on objects that changed."""
        slices = [record for record in records if isinstance(record, SliceRecord)]
        for model in dict.fromkeys(_model_of(record) for record in slices):
            self._reconcile_replicas(model)
            self._changed(model)
        for model in dict.fromkeys(record.id for record in records if isinstance(record, ModelRecord)):
            self._changed(model)

    def _drop_key(self, key: KeyRecord) -> None:
        for entry in key.hashes:
            rest = tuple(known for known in self._keys.get(entry.sha256, ()) if known.key.id != key.id)
            _set_or_drop(self._keys, entry.sha256, rest)

    def _add_key(self, key: KeyRecord) -> None:
        for entry in key.hashes:
            # Logs name the key that was used, not the newest: so one sees whether a former one still is.
            used = key if entry.key_id == key.key_id else replace(key, key_id=entry.key_id)
            rivals = (*self._keys.get(entry.sha256, ()), KnownKey(entry, used))
            self._keys[entry.sha256] = tuple(sorted(rivals, key=lambda k: (k.key.created, k.key.id)))

    def _drop_model(self, model: ModelRecord) -> None:
        for claim in model.claims():
            place = ObjectId(claim.namespace, claim.name)
            rest = tuple(other for other in self._names.get(place, ()) if other.model != model.id)
            _set_or_drop(self._names, place, rest)
        for namespace in {model.id.namespace, *model.shared_with}:
            siblings = self._models[namespace]
            del siblings[model.id]
            _set_or_drop(self._models, namespace, siblings)

    def _add_model(self, model: ModelRecord) -> None:
        for namespace in {model.id.namespace, *model.shared_with}:
            self._models.setdefault(namespace, {})[model.id] = model
        for claim in model.claims():
            place = ObjectId(claim.namespace, claim.name)
            claims = (*self._names.get(place, ()), _Claim(claim.rank, model.created, model.id))
            self._names[place] = tuple(sorted(claims))

    def _drop_slice(self, record: SliceRecord) -> None:
        slices = self._slices[_model_of(record)]
        del slices[record.id.name]
        _set_or_drop(self._slices, _model_of(record), slices)

    def _add_slice(self, record: SliceRecord) -> None:
        self._slices.setdefault(_model_of(record), {})[record.id.name] = record

    def _reconcile_replicas(self, model: ObjectId) -> None:
        """Keep the Replica objects (and so their load) of addresses that stay."""
        known = self._replicas.get(model, {})
        slices = sorted(self._slices.get(model, {}).items(), key=itemgetter(0))
        wanted = dict.fromkeys(address for _, record in slices for address in record.ready)
        replicas = {address: known.get(address) or Replica(address) for address in wanted}
        _set_or_drop(self._replicas, model, replicas)
        _set_or_drop(self._ready, model, tuple(replicas.values()))
        for address, replica in known.items():
            if address not in replicas:
                self._removed(replica)


def _model_of(record: SliceRecord) -> ObjectId:
    return ObjectId(record.id.namespace, record.model)


def _set_or_drop(index: dict[_K, _V], key: _K, value: _V) -> None:
    if value:
        index[key] = value
    else:
        index.pop(key, None)
