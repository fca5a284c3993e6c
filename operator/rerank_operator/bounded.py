"""GET requests to pods: a deadline, a size limit, no redirect, no cookie, no proxy. Used by pod_status and
gateways.
"""

import aiohttp


def session(*, deadline: float, connections: int) -> aiohttp.ClientSession:
    """A client whose requests take at most `deadline` seconds, `connections` of them at a time."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=deadline),
        connector=aiohttp.TCPConnector(limit=connections, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def get(client: aiohttp.ClientSession, ip: str, port: int, path: str, *, limit: int) -> bytes | None:
    """The body of a 200 of at most `limit` bytes, or None when there is none in time."""
    host = f"[{ip}]" if ":" in ip else ip
    try:
        async with client.get(f"http://{host}:{port}{path}", allow_redirects=False) as response:
            if response.status != 200:
                return None
            data = await response.content.read(limit + 1)
            while len(data) <= limit and not response.content.at_eof():
                data += await response.content.read(limit + 1 - len(data))
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None
    return data if len(data) <= limit else None
