"""The catalog entries that come with the installation: applied once, by the leader, when it starts.

Not the chart's own objects: a chart that brings a CustomResourceDefinition cannot bring objects of its kind
in the same release, since both kubectl and helm want to know every kind before they begin.
"""

import asyncio
import json
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import structlog

from rerank_api import names
from rerank_api.catalog_model import CatalogModel
from rerank_operator import resources
from rerank_operator.api_error import ApiError, NotLeaderError
from rerank_operator.builders.metadata import APPLIED_ANNOTATION, with_applied
from rerank_operator.cluster import Cluster
from rerank_operator.compare import satisfied
from rerank_operator.resources import Object

_RETRY_SECONDS: Final = 10.0
# Rights and policies change, and new ones reach each API server a moment after they were applied.
_FORBIDDEN_SECONDS: Final = 60.0

_log = structlog.get_logger()


def load(directory: Path) -> list[Object]:
    """The entries in the directory's JSON files, one in each, with our label.

    Raises:
        ValueError: a file holds no catalog entry; the message names it.
        OSError: the directory cannot be read.
    """
    found = []
    for file in sorted(directory.glob("*.json")):
        try:
            body = json.loads(file.read_text(encoding="utf-8"))
            CatalogModel.parse(body)
        except ValueError as error:
            raise ValueError(f"{file.name} is no catalog entry: {error}") from error
        metadata = {"name": body["metadata"]["name"], "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY}}
        found.append(
            {
                "apiVersion": names.API_VERSION,
                "kind": CatalogModel.kind,
                "metadata": metadata,
                "spec": body["spec"],
            }
        )
    return found


def outdated(wanted: Iterable[Object], live: Iterable[Object]) -> list[tuple[Object, str | None]]:
    """What has to be applied, with the resourceVersion that it replaces. Entries of somebody else stay."""
    there = {body["metadata"]["name"]: body for body in live}
    steps: list[tuple[Object, str | None]] = []
    for entry in wanted:
        intent = with_applied(entry)
        metadata = there.get(entry["metadata"]["name"], {}).get("metadata")
        if metadata is None:
            steps.append((intent, None))
        elif metadata.get("labels", {}).get(names.MANAGED_BY_LABEL) == names.MANAGED_BY and not (
            metadata.get("annotations", {}).get(APPLIED_ANNOTATION)
            == intent["metadata"]["annotations"][APPLIED_ANNOTATION]
            and satisfied(intent, there[entry["metadata"]["name"]])
        ):
            steps.append((intent, metadata["resourceVersion"]))
    return steps


async def install(api: Cluster, entries: list[Object]) -> None:
    """Apply what is not there yet or was changed; tried until it is done."""
    while True:
        try:
            live = await api.list(resources.CATALOG_MODEL, None)
            allowed = [await _apply(api, *step) for step in outdated(entries, live)]
        except (ApiError, NotLeaderError) as error:
            _log.warning("the built-in catalog is not complete yet", error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        if all(allowed):
            return
        await asyncio.sleep(_FORBIDDEN_SECONDS)


async def _apply(api: Cluster, intent: Object, resource_version: str | None) -> bool:
    """Whether it was allowed, be it of use or not."""
    what = f"CatalogModel {intent['metadata']['name']}"
    try:
        await api.apply(intent, resource_version=resource_version)
    except ApiError as error:
        if not error.refused:
            raise
        _log.error("refused", what=what, error=error.message)  # a fact, no bug; the others go on
        return error.status != HTTPStatus.FORBIDDEN
    _log.info("applied", what=what)
    return True
