"""The demo hub with faults in front of it, in a thread of its own, so that tests are plain calls."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from safetensors.numpy import save

from dev.hub import repository
from dev.hub.server import Handler, Hub
from rerank_runtime import selection
from rerank_runtime.failure import Failure
from rerank_runtime.fetch import Settings, fetch
from rerank_runtime.status import Phase, Status

REPO = "acme/ranker"
WEIGHTS = "model.safetensors"

# Answers in the hub's place, or lets it answer (None).
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def model_files(seed: int = 0, *, floats: int = 50_000) -> dict[str, bytes]:
    """A repository's files, with weights of four bytes a float."""
    weights = np.random.default_rng(seed).standard_normal(floats).astype(np.float32)
    return {
        "README.md": b"Ranks nothing.\n",
        "config.json": b'{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}\n',
        "tokenizer.json": b'{"version": "1.0", "model": {"type": "WordPiece", "vocab": {}}}\n',
        WEIGHTS: save({"classifier.weight": weights}),
        "pytorch_model.bin": b"a pickle, which nobody may fetch",
    }


@dataclass(frozen=True)
class Seen:
    """A request for a file."""

    name: str
    start: int
    """First byte asked for."""


class FaultyHub:
    """A hub that listens on loopback and does what a test tells it.

    Attributes:
        faults: Asked in order before the hub itself.
        seen: What was asked for, without HEAD.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hub = Hub({})
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.url = ""

    def publish(
        self,
        files: Mapping[str, bytes | Path],
        repo: str = REPO,
        *,
        branch: str = "main",
        gated: bool = False,
    ) -> str:
        """Put a commit on a branch; returns it. The commits that were there stay."""
        before = repository.load(self.root).get(repo)
        branches: dict[str, dict[str, bytes | Path]] = {}
        if before is not None:
            for name, commit in before.branches.items():
                branches[name] = {f.name: before.path(commit, f).read_bytes() for f in before.commits[commit]}
        moved = branches.pop(branch, None)
        kept = {} if moved is None else {"before": moved}
        tips = repository.write(self.root, repo, branches | kept | {branch: dict(files)}, gated=gated)
        self.hub.repositories = repository.load(self.root)
        return tips[branch]

    def starts(self, name: str = WEIGHTS) -> list[int]:
        """First bytes asked for of a file, request by request; a redirect and its target count once."""
        return [seen.start for seen in self.seen if seen.name == name]

    def reset(self) -> None:
        """Forget faults and requests."""
        self.faults.clear()
        self.seen.clear()
        self.hub.bytes_per_second = {}
        self.hub.requests.clear()

    def content(self, request: web.Request) -> tuple[bytes, int]:
        """A requested file's bytes, and the first one that is asked for."""
        found = self.hub.repositories["{org}/{name}".format(**request.match_info)]
        commit = request.match_info.get("commit") or request.match_info["revision"]
        file = found.file(commit, request.match_info["path"])
        assert file is not None
        return found.path(commit, file).read_bytes(), request.http_range.start or 0

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.match_info.get("path")
        weights = path is not None and path.endswith((".safetensors", ".gguf"))  # the hub redirects to them
        if path and request.method == "GET" and (not weights or "_lfs" in request.path):
            self.seen.append(Seen(path, request.http_range.start or 0))
        for fault in list(self.faults):
            answer = await fault(request)
            if answer is not None:
                return answer
        return await handler(request)

    @contextmanager
    def listening(self) -> Iterator[FaultyHub]:
        """Listen while the block runs."""
        loop = asyncio.new_event_loop()
        app = self.hub.app()
        app.middlewares.insert(0, self.middleware)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

        thread = threading.Thread(target=loop.run_forever, name="hub")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(start(), loop).result(10)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


def settings(hub: FaultyHub, directory: Path, **changes: Any) -> Settings:
    """What fetch is told. Patient, so that a busy machine fails no test; those about silence say less."""
    fixed: dict[str, Any] = {
        "repo": REPO,
        "revision": "main",
        "endpoint": hub.url,
        "patience": 20.0,
        "first_wait": 0.02,
        "lease_seconds": 1.0,
    }
    return Settings(directory=directory, **(fixed | changes))


def run(chosen: Settings) -> Status:
    """Fetch, and the status that was shown last."""
    status = Status(Phase.DOWNLOADING)
    fetch(chosen, status)
    return status


def refused(chosen: Settings) -> Failure:
    """The failure that fetching ends in; nothing must be there to be served then."""
    with pytest.raises(Failure) as refusal:
        fetch(chosen, Status(Phase.DOWNLOADING))
    assert not (chosen.directory / "source.json").exists()
    assert not (chosen.directory / "model").exists()
    return refusal.value


def assert_complete(directory: Path, files: Mapping[str, bytes]) -> None:
    """The model's directory holds what is needed of these files, byte for byte, and nothing else."""
    model = directory / "model"
    there = {p.relative_to(model).as_posix(): p.read_bytes() for p in model.rglob("*") if p.is_file()}
    wanted = selection.select(files)
    assert sorted(there) == wanted
    assert all(there[name] == files[name] for name in wanted)
    assert list(directory.rglob("*.partial")) == list(directory.rglob("*.lease")) == []


@contextmanager
def environment_kept() -> Iterator[None]:
    """Put back what fetch sets in the environment, for the hub's client in its process."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def is_file(request: web.Request, name: str = WEIGHTS) -> bool:
    """A GET of a file's bytes, not of the redirect to them."""
    large = name.endswith(".safetensors")
    return (
        request.method == "GET"
        and request.match_info.get("path") == name
        and ("/_lfs/" in request.path or not large)
    )


def is_listing(request: web.Request) -> bool:
    """A question for a commit and its files."""
    return request.path.startswith("/api/")


def times(count: int, fault: Fault) -> Fault:
    """A fault that goes away after so many answers."""
    left = [count]

    async def limited(request: web.Request) -> web.StreamResponse | None:
        if left[0] == 0:
            return None
        # Before it answers, which may take long: others come in the meantime.
        left[0] -= 1
        answer = await fault(request)
        left[0] += answer is None
        return answer

    return limited


def answer(
    status: int,
    when: Callable[[web.Request], bool] = is_file,
    *,
    body: str = "",
    kind: str = "text/plain",
    **headers: str,
) -> Fault:
    """Another answer than the hub's."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not when(request):
            return None
        return web.Response(status=status, headers=named, text=body, content_type=kind)

    return fault


def redirect_to_itself(request: web.Request) -> Awaitable[web.StreamResponse | None]:
    """A redirect that leads nowhere."""

    async def fault() -> web.StreamResponse | None:
        if not is_file(request):
            return None
        return web.Response(status=302, headers={"Location": request.path_qs})

    return fault()


def cut(hub: FaultyHub, positions: list[int], name: str = WEIGHTS) -> Fault:
    """The connection ends when the file has been sent up to a position; one position for each request."""
    left = iter(positions)

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_file(request, name):
            return None
        position = next(left, None)
        if position is None:
            return None
        content, start = hub.content(request)
        response = await begin(request, content, start)
        await response.write(content[start : max(position, start)])
        assert request.transport is not None
        # Orderly, so that what was sent arrives; then the client sees that the rest is missing.
        request.transport.close()
        return response

    return fault


def altered(hub: FaultyHub, change: Callable[[bytes], bytes], name: str = WEIGHTS) -> Fault:
    """A file with other bytes than the hub lists, sent from the position asked for."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_file(request, name):
            return None
        content, start = hub.content(request)
        content = change(content)
        response = await begin(request, content, start)
        await response.write(content[start:])
        await response.write_eof()
        return response

    return fault


def without_length(hub: FaultyHub, change: Callable[[bytes], bytes], name: str = WEIGHTS) -> Fault:
    """The same in chunks, so that no header tells the length."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_file(request, name):
            return None
        content, _ = hub.content(request)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(change(content))
        await response.write_eof()
        return response

    return fault


def compressed(hub: FaultyHub, name: str) -> Fault:
    """A hub that compresses what was asked for as it is."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_file(request, name):
            return None
        content, _ = hub.content(request)
        return web.Response(body=gzip.compress(content), headers={"Content-Encoding": "gzip"})

    return fault


def no_ranges(hub: FaultyHub) -> Fault:
    """A hub that sends the whole file whatever part was asked for."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        return web.Response(body=hub.content(request)[0]) if is_file(request) else None

    return fault


def elsewhere(hub: FaultyHub) -> Fault:
    """A hub that answers with another part than was asked for."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_file(request) or request.http_range.start is None:
            return None
        content, start = hub.content(request)
        response = await begin(request, content, start - 7)
        await response.write(content[start - 7 :])
        return response

    return fault


def paused(hub: FaultyHub, position: int, released: threading.Event) -> Fault:
    """The file up to a position, and the rest when it is released."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_file(request):
            return None
        content, start = hub.content(request)
        response = await begin(request, content, start)
        await response.write(content[start:position])
        await asyncio.to_thread(released.wait, 120)
        await response.write(content[max(start, position) :])
        return response

    return fault


def drip(hub: FaultyHub, released: threading.Event, *, every: float, count: int = 1) -> Fault:
    """So many bytes at a time, for ever."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_file(request):
            return None
        content, start = hub.content(request)
        response = await begin(request, content, start)
        while not released.is_set():
            await response.write(content[start : start + count])
            start += count
            await asyncio.sleep(every)
        return response

    return fault


async def begin(request: web.Request, content: bytes, start: int) -> web.StreamResponse:
    """Head of an answer with a file's bytes from a position on."""
    asked = request.http_range.start is not None
    response = web.StreamResponse(status=206 if asked else 200)
    response.content_length = len(content) - start
    if asked:
        response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    await response.prepare(request)
    return response


def edit_listing(change: Callable[[dict[str, Any]], None]) -> Fault:
    """A listing with changes, by way of the hub's own."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not is_listing(request):
            return None
        original = await request.match_info.handler(request)
        assert isinstance(original, web.Response)
        assert original.text is not None
        body = json.loads(original.text)
        change(body)
        return web.json_response(body)

    return fault
