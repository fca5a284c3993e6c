"""Secrets: the key of an APIKey, and the master of the backend tokens."""

import base64

from rerank_api import names
from rerank_api.api_key import APIKey
from rerank_operator.builders.metadata import owner_reference
from rerank_operator.resources import Object

BACKEND_TOKEN_FIELD = "master"  # noqa: S105  # the name of a field


def api_key_secret(key: APIKey, *, text: str | None) -> Object:
    """The Secret that hands the key `text` to its user; None for a question about the Secret as it is.

    Its type cannot be changed afterwards: so applying this onto somebody else's Secret is refused by the API
    server, and the operator need not be able to read Secrets to know that.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": key.secret_name,
            "namespace": key.metadata.namespace,
            "labels": names.api_key_labels(),
            "ownerReferences": [owner_reference(key)],
        },
        "type": names.API_KEY_SECRET_TYPE,
        **({} if text is None else {"data": {names.API_KEY_SECRET_FIELD: _encoded(text)}}),
    }


def backend_token_secret(*, namespace: str, name: str, master: str) -> Object:
    """The Secret with the master of the backend tokens; `master` as 64 hex digits."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY},
        },
        "type": "Opaque",
        "data": {BACKEND_TOKEN_FIELD: _encoded(master)},
    }


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
