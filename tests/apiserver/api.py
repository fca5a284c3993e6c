"""A small synchronous client for tests: what they do to the cluster stays visible, verb by verb."""

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import yaml

from dev.cluster.access import Access

Object = dict[str, Any]
Answer = TypeVar("Answer")

ROOT = Path(__file__).parents[2]
RERANK = "/apis/rerank.dev/v1alpha1"


class Refused(Exception):  # noqa: N818  # reads as what happened: `pytest.raises(Refused)`
    """The API server's refusal."""

    def __init__(self, status: int, body: Object) -> None:
        super().__init__(f"{status} {body.get('message', body)}")
        self.status = status
        self.body = body


# The API server closes a connection that was idle for much longer.
_IDLE_SECONDS = 30.0


class _Connection(http.client.HTTPSConnection):
    """Closed with the thread that has it."""

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True)
class Api:
    """The API server as the administrator sees it, or with `token` as a service account."""

    access: Access
    token: str | None = None
    _kept: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def request(
        self,
        method: str,
        path: str,
        body: Object | list[Any] | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> Object:
        headers = {"Accept": accept, "Content-Type": content_type}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self._connection()
        try:
            target = path + ("?" + urlencode(query) if query else "")
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        except BaseException:
            connection.close()
            raise
        self._kept.used = time.monotonic()
        try:
            answer = json.loads(text)
        except ValueError:  # a path that is not served yet is refused in plain words
            answer = {"message": text.decode()}
        if response.status >= 400:
            raise Refused(response.status, answer)
        assert isinstance(answer, dict)
        return answer

    def _connection(self) -> _Connection:
        """This thread's connection. It connects anew where it was closed."""
        kept: _Connection | None = getattr(self._kept, "connection", None)
        if kept is None:
            context = ssl.create_default_context(cafile=str(self.access.authority))
            if self.token is None:
                context.load_cert_chain(self.access.certificate, self.access.key)
            netloc = urlsplit(self.access.url).netloc
            kept = self._kept.connection = _Connection(netloc, context=context, timeout=30)
        elif time.monotonic() - self._kept.used > _IDLE_SECONDS:
            kept.close()
        return kept

    def get(self, path: str) -> Object:
        return self.request("GET", path)

    def find(self, path: str) -> Object | None:
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[Object]:
        found = self.request("GET", path, None, **query)["items"]
        assert isinstance(found, list)
        return found

    def create(self, path: str, body: Object) -> Object:
        return self.request("POST", path, body)

    def merge(self, path: str, body: Object) -> Object:
        return self.request("PATCH", path, body, content_type="application/merge-patch+json")

    def apply(self, path: str, body: Object, *, manager: str = "test") -> Object:
        return self.request(
            "PATCH",
            path,
            body,
            content_type="application/apply-patch+yaml",
            fieldManager=manager,
            force="true",
        )

    def delete(self, path: str, *, propagation: str = "Background") -> None:
        self.request("DELETE", path, propagationPolicy=propagation)


def eventually(
    what: str, look: Callable[[], Answer | None], *, seconds: float = 60, pause: float = 0.05
) -> Answer:
    """The first true answer of `look`, asked until the deadline. Fails with `what` and the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last answer: {answer!r}")
        time.sleep(pause)


def with_crds(api: Api) -> Api:
    """The same API server, once it serves our resources."""
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
        api.apply(path, crd)

    def served() -> bool:
        try:
            return len(api.get(RERANK)["resources"]) == 6  # three kinds, two /status, one /scale
        except Refused:
            return False

    eventually("the CRDs are served", served)
    return api


def catalog_entry(name: str, *, repo: str = "demo/word-overlap", **spec: Any) -> Object:
    """A CatalogModel."""
    return {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "CatalogModel",
        "metadata": {"name": name},
        "spec": {
            "displayName": name,
            "description": "For tests.",
            "family": "bert",
            "license": "MIT",
            "languages": "en",
            "parameters": "4.4M",
            "contextLength": 512,
            "memory": "1 GB",
            "source": {"huggingFace": {"repo": repo}},
            **spec,
        },
    }
