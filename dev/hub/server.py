"""The hub's HTTP side, as far as the real huggingface_hub client asks for it, with the real hub's errors.

What is reproduced: model information with file sizes, the tree listing, `resolve` with HEAD, GET, ETag, Range
and X-Repo-Commit, large files behind a redirect to another path, gated repositories, unknown repositories
that look like private ones to a caller without a token.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from dev.hub.repository import File, Repository, load

# Tokens that this hub knows: the first may read gated repositories, the second may not.
READER = "hf_demo_reader"
VISITOR = "hf_demo_visitor"

_CHUNK = 256 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Hub:
    """The application's state.

    Args:
        repositories: What is served, by name.
        bytes_per_second: Limit for each download of a repository's files, by its name; `*` is for all others.
    """

    def __init__(
        self, repositories: dict[str, Repository], bytes_per_second: dict[str, int] | None = None
    ) -> None:
        self.repositories = repositories
        self.bytes_per_second = bytes_per_second or {}
        self.requests: Counter[str] = Counter()

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._count])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/_demo/requests", self._show_requests)
        app.router.add_get("/api/models/{org}/{name}", self._info)
        app.router.add_get("/api/models/{org}/{name}/revision/{revision:.+}", self._info)
        app.router.add_get("/api/models/{org}/{name}/tree/{revision:[^/]+}", self._tree)
        app.router.add_get("/{org}/{name}/resolve/{revision:[^/]+}/{path:.+}", self._resolve)
        app.router.add_get("/_lfs/{org}/{name}/{commit}/{path:.+}", self._large)
        return app

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        kind = request.match_info.route.resource
        status = 500
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as refusal:
            status = refusal.status
            raise
        finally:
            pattern = kind.canonical if kind else "unknown"
            self.requests[f"{request.method} {pattern} {status}"] += 1
            if pattern != "/healthz":
                line = {"method": request.method, "path": request.path, "status": status}
                print(json.dumps(line), file=sys.stdout, flush=True)
        return response

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _show_requests(self, _request: web.Request) -> web.Response:
        return web.json_response(dict(self.requests))

    async def _info(self, request: web.Request) -> web.Response:
        repository, commit = self._find(request, request.match_info.get("revision", "main"))
        blobs = request.query.get("blobs", "").lower() in ("1", "true")
        return web.json_response(
            {
                "_id": commit[:24],
                "id": repository.name,
                "modelId": repository.name,
                "sha": commit,
                "private": False,
                "gated": "auto" if repository.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [_sibling(file, blobs=blobs) for file in repository.commits[commit]],
            },
            headers={"X-Repo-Commit": commit},
        )

    async def _tree(self, request: web.Request) -> web.Response:
        repository, commit = self._find(request, request.match_info["revision"])
        entries = [
            {"type": "file", "path": file.name, "size": file.size, "oid": file.oid}
            | ({"lfs": {"oid": file.oid, "size": file.size, "pointerSize": 134}} if file.lfs else {})
            for file in repository.commits[commit]
        ]
        return web.json_response(entries, headers={"X-Repo-Commit": commit})

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        repository, commit = self._find(request, request.match_info["revision"])
        if repository.gated and _token(request) != READER:
            _refuse(
                403 if _token(request) else 401,
                "GatedRepo",
                f"Access to model {repository.name} is restricted and you are not in the authorized list.",
            )
        file = repository.file(commit, request.match_info["path"])
        if file is None:
            _refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            # Another path of the same host: like the real hub's CDN it is found by following the redirect
            # alone.
            target = f"{request.scheme}://{request.host}/_lfs/{repository.name}/{commit}/{file.name}"
            headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.oid}"', "Location": target}
            return web.Response(status=302, headers=headers)
        return await self._send(request, repository, commit, file, headers)

    async def _large(self, request: web.Request) -> web.StreamResponse:
        # No token here: the real hub's CDN takes signed addresses.
        repository = self.repositories.get("{org}/{name}".format(**request.match_info))
        commit = request.match_info["commit"]
        file = (
            repository.file(commit, request.match_info["path"])
            if repository and commit in repository.commits
            else None
        )
        if repository is None or file is None:
            raise web.HTTPNotFound
        # On one host the client follows the redirect in its HEAD request too, and wants the commit there as
        # well.
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
        return await self._send(request, repository, commit, file, headers)

    async def _send(
        self, request: web.Request, repository: Repository, commit: str, file: File, headers: dict[str, str]
    ) -> web.StreamResponse:
        try:
            wanted = request.http_range
        except ValueError:
            raise web.HTTPRequestRangeNotSatisfiable(
                headers={"Content-Range": f"bytes */{file.size}"}
            ) from None
        start, stop = wanted.start or 0, min(wanted.stop or file.size, file.size)
        if start and start >= file.size:
            raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{file.size}"})
        partial = wanted.start is not None or wanted.stop is not None
        response = web.StreamResponse(status=206 if partial else 200, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = stop - start
        if partial:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        await response.prepare(request)
        if request.method != "HEAD":
            limit = self.bytes_per_second.get(repository.name, self.bytes_per_second.get("*", 0))
            await _stream(response, repository.path(commit, file), start, stop, limit)
        await response.write_eof()
        return response

    def _find(self, request: web.Request, revision: str) -> tuple[Repository, str]:
        token = _token(request)
        if token is not None and token not in (READER, VISITOR):
            _refuse(401, None, "Invalid credentials in Authorization header")
        repository = self.repositories.get("{org}/{name}".format(**request.match_info))
        if repository is None:
            # To a caller without a token what does not exist looks like what is private.
            if token is None:
                _refuse(401, "RepoNotFound", "Invalid username or password.")
            _refuse(404, "RepoNotFound", "Repository not found")
        commit = repository.commit_of(revision)
        if commit is None:
            _refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit


def create_app(root: Path, bytes_per_second: dict[str, int] | None = None) -> web.Application:
    """The hub over a directory that `models.build` has written."""
    return Hub(load(root), bytes_per_second).app()


def _sibling(file: File, *, blobs: bool) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": file.name}
    if blobs:
        entry |= {"size": file.size, "blobId": file.oid[:40]}
        if file.lfs:
            entry["lfs"] = {"sha256": file.oid, "size": file.size, "pointerSize": 134}
    return entry


def _token(request: web.Request) -> str | None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if kind == "Bearer" and token else None


def _refuse(status: int, code: str | None, message: str) -> NoReturn:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    kinds = {401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound}
    raise kinds[status](headers=headers, text=json.dumps({"error": message}), content_type="application/json")


async def _stream(response: web.StreamResponse, path: Path, start: int, stop: int, limit: int) -> None:
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    with path.open("rb") as file:
        file.seek(start)
        while start + sent < stop:
            size = min(_CHUNK, stop - start - sent, limit or _CHUNK)
            chunk = await asyncio.to_thread(file.read, size)
            if not chunk:
                return
            await response.write(chunk)
            sent += len(chunk)
            if limit:
                await asyncio.sleep(max(0.0, began + sent / limit - loop.time()))
