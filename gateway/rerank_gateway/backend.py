"""One call to one replica, behind a small interface: the HTTP client can be replaced without the data path
knowing.
"""

import asyncio
import io
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final, Protocol

import aiohttp

from rerank_gateway.records import Address

PATH: Final = "/v1/rerank"
DRAINING_HEADER: Final = "X-Rerank-Draining"

_CONNECT_SECONDS: Final = 3.0
# Below the 75 s after which the runtime closes an idle connection, so that the closing is ours.
_IDLE_SECONDS: Final = 30.0
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_PLAIN_BYTES_LIMIT: Final = 1024 * 1024  # aiohttp wants larger bodies as a stream


@dataclass(frozen=True, slots=True)
class BackendAnswer:
    """What a replica answered."""

    status: int
    body: bytes


class UnreachableError(Exception):
    """The connection failed, broke before the whole answer was there, or the replica is about to stop and
    did not look at the request.

    `stale`: it was a pooled connection that died before the answer's first byte, most likely because the
    replica closed it while it was idle; asking the same replica again is sound then.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class InvalidAnswerError(Exception):
    """What came back is not HTTP, or larger than any ranking."""


class Backend(Protocol):
    """The HTTP client of the data path."""

    async def rerank(self, address: Address, body: bytes, token: str | None) -> BackendAnswer:
        """Post `body` to a replica. Cancelling the call closes its connection, which stops the replica.

        Raises:
            UnreachableError: no answer; trying another replica is sound, a ranking changes nothing.
            InvalidAnswerError: no point in trying elsewhere.
        """

    def forget(self, address: Address) -> None:
        """The replica is gone: close its idle connections now, the others when they are done."""

    async def close(self) -> None:
        """Close every connection."""


class AiohttpBackend:
    """One connection pool for each replica, made when it is first asked."""

    def __init__(self) -> None:
        self._pools: dict[Address, _Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def rerank(self, address: Address, body: bytes, token: str | None) -> BackendAnswer:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(address)
        pool.in_flight += 1
        try:
            return await pool.post(body, token)
        except UnreachableError as error:
            if error.stale and self._pools.get(address) is pool:
                self.forget(address)  # its other idle connections are likely as dead
            raise
        finally:
            pool.in_flight -= 1
            if pool.retired and pool.in_flight == 0:
                self._close_soon(pool)

    def forget(self, address: Address) -> None:
        pool = self._pools.pop(address, None)
        if pool is not None:
            pool.retired = True
            if pool.in_flight == 0:
                self._close_soon(pool)

    async def close(self) -> None:
        for address in list(self._pools):
            self.forget(address)
        await asyncio.gather(*self._closing)

    def _close_soon(self, pool: "_Pool") -> None:
        task = asyncio.get_running_loop().create_task(pool.session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Pool:
    """The connections to one replica."""

    def __init__(self, address: Address) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.url = f"http://{host}:{address.port}{PATH}"
        self.in_flight = 0
        self.retired = False
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            auto_decompress=False,
            trace_configs=[trace],
        )

    async def post(self, body: bytes, token: str | None) -> BackendAnswer:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection = SimpleNamespace(reused=False)
        try:
            async with self.session.post(
                self.url,
                data=body if len(body) <= _PLAIN_BYTES_LIMIT else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=connection,
            ) as response:
                if response.status == 503 and DRAINING_HEADER in response.headers:
                    raise UnreachableError("draining")
                return BackendAnswer(response.status, await _read(response))
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise UnreachableError(type(error).__name__, stale=connection.reused) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise UnreachableError(type(error).__name__) from error
        except aiohttp.ClientError as error:
            raise InvalidAnswerError(type(error).__name__) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, bounded: a replica that runs wild must not take the gateway's memory."""
    length = response.content_length
    if length is not None and length <= _MAX_ANSWER_BYTES:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise InvalidAnswerError("answer too large")
    return bytes(body)


async def _note_reuse(_session: object, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True
