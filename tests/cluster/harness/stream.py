"""A steady stream of requests that remembers every failure: what rollouts are judged by."""

import http.client
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.cluster.harness.http import Address, Answer, send_on


@dataclass(frozen=True)
class Failure:
    """One request that was not answered well."""

    after: float
    """Seconds since the stream's start."""
    took: float
    """Seconds from the request to its end."""
    kept: bool
    """Whether the connection had been used before."""
    cause: str

    def __str__(self) -> str:
        connection = "kept connection" if self.kept else "new connection"
        return f"at {self.after:.1f} s, after {self.took:.1f} s, {connection}: {self.cause}"


class SteadyStream:
    """Asks the same again and again from several threads while its block lasts.

    Half of the threads keep their connection, as client libraries do; the others open one for each request,
    as short-lived jobs do. A request is a failure unless it is answered with 200.
    """

    def __init__(
        self,
        address: Address,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        threads: int = 4,
        pause: float = 0.8,
    ) -> None:
        """Prepare the stream; entering the block starts it.

        Args:
            address: where to ask.
            path: what to POST to.
            headers: of every request.
            body: of every request.
            threads: how many requests may be under way at once.
            pause: seconds that a thread waits between an answer and its next request.
        """
        self._address = address
        self._path = path
        self._headers = headers
        self._body = body
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number % 2 == 0,)) for number in range(threads)
        ]
        self._start = 0.0
        self.answered = 0
        self.failures: list[Failure] = []

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def report(self) -> str:
        """Return the count of requests and every failure, in order."""
        lines = [f"{self.answered} answered, {len(self.failures)} failed"]
        return "\n".join([*lines, *(str(failure) for failure in self.failures[:40])])

    def _ask_on(self, keep: bool) -> None:
        connection = self._connect()
        used = False
        try:
            while not self._stop.is_set():
                begun = time.monotonic()
                try:
                    answer = send_on(connection, "POST", self._path, headers=self._headers, body=self._body)
                except (OSError, http.client.HTTPException) as error:
                    self._record(begun, used, f"{type(error).__name__}: {error}")
                    connection.close()
                    used = False
                else:
                    self._judge(begun, used, answer)
                    used = keep
                if not keep:
                    connection.close()  # http.client opens a new one by itself
                self._stop.wait(self._pause)
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address.host, self._address.port, timeout=90)

    def _judge(self, begun: float, kept: bool, answer: Answer) -> None:
        if answer.status != 200:
            self._record(begun, kept, str(answer))
            return
        with self._lock:
            self.answered += 1

    def _record(self, begun: float, kept: bool, cause: str) -> None:
        failure = Failure(begun - self._start, time.monotonic() - begun, kept, cause)
        with self._lock:
            self.failures.append(failure)
