"""What `helm test` runs in a pod: ask the gateway as a client does, and exit 1 at the first wrong answer.

RERANK_URL is the gateway's address. With RERANK_MODEL and RERANK_KEY three texts are ranked. Without, what
needs no key is checked.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

PANDA = "The giant panda (Ailuropoda melanoleuca) is a bear species endemic to China."
QUESTION = {"query": "What is a panda?", "documents": ["hi", "it is a bear", PANDA]}
CONNECT_SECONDS = 60


def send(path: str, body: dict[str, Any] | None = None, key: str = "") -> tuple[int, dict[str, Any]]:
    """GET, or POST where there is a body. A Service may need some seconds to lead to new pods."""
    request = urllib.request.Request(  # noqa: S310 - the chart's own http address
        os.environ["RERANK_URL"] + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
    )
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=90) as response:  # noqa: S310 - as above
                return response.status, json.load(response)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def check(what: str, holds: bool, answer: object) -> None:  # noqa: FBT001 - reads as a sentence
    """Print a passed check; end with the answer at one that failed."""
    if not holds:
        sys.exit(f"FAILED: {what}\n{json.dumps(answer, indent=2)[:4000]}")
    print(f"ok: {what}")  # noqa: T201 - the output is for people


def public_surface() -> None:
    """What a client without a key sees."""
    status, answer = send("/v1/rerank", {"model": "any", **QUESTION})
    shape = isinstance(answer.get("error"), dict) and bool(answer["error"].get("message"))
    check("a request without a key is refused with 401 and a reason", status == 401 and shape, answer)
    status, answer = send("/openapi.json")
    check("/openapi.json describes /v1/rerank", status == 200 and "/v1/rerank" in answer["paths"], answer)


def ranking(model: str, key: str) -> None:
    """Three texts, of which one answers the query."""
    status, answer = send("/v1/rerank", {"model": model, **QUESTION}, key)
    check(f"{model} answers", status == 200, answer)
    results = answer["results"]
    for rank, result in enumerate(results, start=1):
        print(rank, f"{result['relevance_score']:.4f}", QUESTION["documents"][result["index"]])  # noqa: T201
    check(f"{model} ranks the panda's text first", [r["index"] for r in results][:1] == [2], answer)


def main() -> None:
    """Run the checks."""
    public_surface()
    model, key = os.environ.get("RERANK_MODEL", ""), os.environ.get("RERANK_KEY", "")
    if model and key:
        ranking(model, key)
    else:
        print("not checked: a ranking. Set test.model and test.keySecret to have one.")  # noqa: T201


main()
