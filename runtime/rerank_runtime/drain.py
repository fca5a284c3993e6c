"""`rerank-runtime drain`, the pod's preStop hook: asks pid 1 to drain and returns when nothing is in flight.

Kept to the standard library, so that it runs at once.
"""

from __future__ import annotations

import http.client
import json

# Longer than pid 1 itself waits (serve.DRAIN_LIMIT), shorter than terminationGracePeriodSeconds (150).
TIMEOUT = 130.0


def drain(port: int, timeout: float = TIMEOUT) -> int:
    """Drain the pod that this process runs in.

    Args:
        port: The status port.
        timeout: Seconds to wait for the answer.

    Returns:
        Requests that were still in flight when pid 1 gave up waiting; normally 0.

    Raises:
        OSError: pid 1 does not answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", "/drain")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"/drain answered {response.status}")
        return int(json.loads(body)["inFlight"])
    finally:
        connection.close()
