"""Where the gateways are: the addresses of their headless Service, asked of DNS, which takes no rights."""

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from rerank_operator import bounded

DEADLINE_SECONDS: Final = 5.0


@dataclass(slots=True)
class Gateways:
    """The internal ports of all gateways. `host` is a name with an address for each of them."""

    host: str
    port: int
    _client: aiohttp.ClientSession = field(init=False)

    def __post_init__(self) -> None:
        self._client = bounded.session(deadline=DEADLINE_SECONDS, connections=16)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def addresses(self) -> frozenset[str]:
        """Every address; none where the name is not known."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            return frozenset()
        return frozenset(str(entry[4][0]) for entry in found)

    async def ask(self, ip: str, path: str, *, limit: int) -> bytes | None:
        """The body of the 200 that the gateway at `ip` answers, or None when it gives none in time."""
        return await bounded.get(self._client, ip, self.port, path, limit=limit)
