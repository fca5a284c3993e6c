"""`python -m rerank_gateway.mint NAME > FOLDER/NAME.yaml`: a key for a gateway without Kubernetes.

Standard output gets the APIKey, which holds the key's hash alone; the key itself is shown once, on standard
error. In a cluster the operator does this.
"""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
import yaml

from rerank_api import keys
from rerank_api.names import API_VERSION


def mint(
    name: Annotated[str, typer.Argument(help="What to call the APIKey.")],
    namespace: Annotated[str, typer.Option(help="Of the models that it may call.")] = "default",
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
) -> None:
    """Print an APIKey with a new key's hash, and the key on standard error."""
    minted = keys.mint()
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    body = {
        "apiVersion": API_VERSION,
        "kind": "APIKey",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": now},
        "spec": {"models": model} if model else {},
        "status": {
            "keyId": minted.key_id,
            "hint": minted.hint,
            "hashes": [{"keyId": minted.key_id, "sha256": minted.sha256}],
        },
    }
    sys.stdout.write(yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
    sys.stderr.write(f"The key, shown once: {minted.text}\n")


if __name__ == "__main__":
    typer.run(mint)
