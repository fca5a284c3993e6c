"""The master of the backend tokens: read from its file, made on the first start. Called by `main`, once.

The operator may create Secrets but not read them. So it knows the master either because it just made it, or
because the kubelet mounted it.
"""

import asyncio
from pathlib import Path
from typing import Final

import structlog

from rerank_api import backend_token
from rerank_operator.builders.secret import backend_token_secret
from rerank_operator.cluster import Cluster
from rerank_operator.config import Settings

_LOOK_SECONDS: Final = 1.0
_SAY_EVERY: Final = 30

_log = structlog.get_logger()


async def obtain(api: Cluster, settings: Settings) -> bytes:
    """The master, however long it takes until it is there.

    Raises:
        ValueError: the file does not hold 64 hex digits.
        ApiError: the Secret could not be created, for another reason than that it exists.
    """
    found = _read(settings.backend_token_file)
    if found is not None:
        return found
    made = backend_token.new_master()
    wanted = backend_token_secret(
        namespace=settings.namespace, name=settings.backend_token_secret, master=made
    )
    if await api.create_secret(wanted):
        _log.info("made the backend token", secret=settings.backend_token_secret)
        return backend_token.read_master(made)
    waited = 0
    while (found := _read(settings.backend_token_file)) is None:
        if waited % _SAY_EVERY == 0:
            _log.info(
                "waiting for the backend token to be mounted",
                secret=settings.backend_token_secret,
                file=str(settings.backend_token_file),
            )
        await asyncio.sleep(_LOOK_SECONDS)
        waited += 1
    return found


def _read(file: Path) -> bytes | None:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    return backend_token.read_master(text) if text.strip() else None
