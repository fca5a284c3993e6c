"""Which dialect a request speaks: by its path, and by its fields where several share one."""

from typing import Final

from rerank_gateway.dialects import cohere, jina, score, tei, voyage
from rerank_gateway.dialects import fields as read
from rerank_gateway.dialects.call import Call, Dialect, Fields, Route

PER_MODEL: Final = "/models/{model}/rerank"
_PER_MODEL_START, _PER_MODEL_END = PER_MODEL.split("{model}")


def rerank(fields: Fields, route: Route) -> Call:
    """The path that most clients post to."""
    if tei.speaks(fields):
        return tei.parse(fields, route)
    if voyage.speaks(fields):
        return voyage.parse(fields, route)
    return jina.parse(fields, route)


PATHS: Final[dict[str, tuple[Dialect, Route]]] = {
    "/v1/rerank": (rerank, Route(listed=True)),
    "/rerank": (rerank, Route()),  # infinity's client refuses an `object` here
    "/v2/rerank": (cohere.parse, Route()),
    "/v1/score": (score.parse, Route()),
    "/score": (score.parse, Route()),
}


def known(path: str) -> str:
    """`path`, or what stands for it in a table of paths."""
    return PER_MODEL if _model(path) else path


def parse(path: str, body: bytes) -> Call:
    """Read the body of a request to one of `PATHS` or `PER_MODEL`.

    Raises:
        ApiError: 400 that names the field at fault.
    """
    model = _model(path)
    dialect, route = (rerank, Route(model=model)) if model else PATHS[path]
    return dialect(read.load(body), route)


def _model(path: str) -> str:
    """The model in a path; a repository id has a slash in it."""
    if path.startswith(_PER_MODEL_START) and path.endswith(_PER_MODEL_END):
        return path[len(_PER_MODEL_START) : -len(_PER_MODEL_END)]
    return ""
