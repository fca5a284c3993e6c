"""Asking the running vLLM over its HTTP routes: for verification, draining and health.

Through the guard, with its internal token, and through the intake: what is verified is what is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from rerank_runtime import guard
from rerank_runtime.verification.cases import Case
from rerank_runtime.verification.observation import Answer, Expected, Surroundings

# vLLM on a busy CPU may take a while for its first request; nothing waits for this but readiness.
REQUEST_TIMEOUT = 60.0
HEALTH_TIMEOUT = 10.0
# One for each way to finish, which is one document's (vllm/v1/metrics/loggers.py).
_FINISHED = "vllm:request_success_total{"


@dataclass(frozen=True)
class GuardState:
    """What the guard counts."""

    in_flight: int
    draining: bool


class EngineApi:
    """A client of one engine.

    Args:
        port: The engine's port on loopback.
        model: Its served name.
        token: The internal token of this start (guard.INTERNAL_TOKEN).
    """

    def __init__(self, port: int, model: str, token: str) -> None:
        self._model = model
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def healthy(self) -> bool:
        """Whether /health answers 200 in time."""
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
            async with self._session.get("/health", timeout=timeout) as response:
                return response.status == 200
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

    async def state(self) -> GuardState | None:
        """What the guard counts; None where the engine does not answer."""
        return await self._guard("GET", guard.STATE_PATH)

    async def drain(self) -> GuardState | None:
        """Let the guard refuse new requests; None where the engine does not answer."""
        return await self._guard("POST", guard.DRAIN_PATH)

    async def finished(self) -> int | None:
        """How many documents the engine has scored since it started; None where it does not say."""
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
            async with self._session.get("/metrics", timeout=timeout) as response:
                response.raise_for_status()
                lines = (await response.text()).splitlines()
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None
        counts = [line.rpartition(" ")[2] for line in lines if line.startswith(_FINISHED)]
        return sum(int(float(count)) for count in counts) if counts else None

    async def _guard(self, method: str, path: str) -> GuardState | None:
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
            async with self._session.request(method, path, timeout=timeout) as response:
                response.raise_for_status()
                body = await response.json()
                return GuardState(int(body["inFlight"]), bool(body["draining"]))
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None

    async def surroundings(self) -> Surroundings:
        """What the engine says about the way it serves the model.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError: the engine does not answer.
            ValueError, KeyError, IndexError, TypeError: it does not answer as vLLM does.
        """
        async with self._session.get("/openapi.json") as response:
            response.raise_for_status()
            routes = frozenset((await response.json())["paths"])
        async with self._session.get("/v1/models") as response:
            response.raise_for_status()
            length = (await response.json())["data"][0]["max_model_len"]
        return Surroundings(routes, int(length))

    async def ask(self, case: Case, expected: Expected | None = None) -> Answer:
        """Ask one case, as any caller does.

        Raises: as surroundings.
        """
        # The irrelevant text comes first: an engine that gives back the order it was given must not pass.
        documents = [case.irrelevant, case.relevant]
        body = {"model": self._model, "query": case.query, "documents": documents}
        async with self._session.post("/v1/rerank", json=body) as response:
            if response.status != 200:
                error = f"{response.status}: {_message(await response.text())}"
                return Answer(case, expected=expected, error=error)
            content: dict[str, Any] = await response.json()
            truncated = guard.TRUNCATED_HEADER.decode() in response.headers
        scores = {int(entry["index"]): float(entry["relevance_score"]) for entry in content["results"]}
        if sorted(scores) != [0, 1]:
            return Answer(case, expected=expected, error=f"{len(scores)} scores for 2 documents")
        return Answer(
            case,
            relevant=scores[1],
            irrelevant=scores[0],
            prompt_tokens=int(content["usage"]["prompt_tokens"]),
            expected=expected,
            truncated=truncated,
        )


def _message(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + "…"
