"""What people see: kubectl's columns, explanations and scale, with the real kubectl."""

import re
import subprocess
from pathlib import Path

import pytest

from dev.cluster.access import Access
from tests.apiserver.api import RERANK, Api, eventually
from tests.apiserver.operator_process import Operator

CATALOG = Path(__file__).parents[2] / "charts" / "rerank-operator" / "files" / "catalog"


@pytest.fixture(autouse=True)
def _operator_runs(running: Operator) -> None:
    """Each test here has the operator running when it begins."""


def kubectl(access: Access, *arguments: str) -> str:
    done = subprocess.run(
        [*access.kubectl, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(text: str) -> list[dict[str, str]]:
    """Rows by column; columns are where their headings stand."""
    heading, *rows = text.splitlines()
    found = list(re.finditer(r"\S+", heading))
    names, starts = [match[0] for match in found], [match.start() for match in found]
    ends = [*starts[1:], None]
    return [{name: row[a:b].strip() for name, a, b in zip(names, starts, ends, strict=True)} for row in rows]


def test_the_columns_of_models(api: Api, namespace: str) -> None:
    sources = {
        "hub": {"huggingFace": {"repo": "BAAI/bge-reranker-v2-m3"}},
        "known": {"catalog": "no-such-entry"},
        "oci": {"image": {"reference": f"models/bge-m3@sha256:{'0' * 64}"}},
        "volume": {"persistentVolumeClaim": {"claimName": "weights", "path": "bge"}},
    }
    for name, source in sources.items():
        path = f"{RERANK}/namespaces/{namespace}/modeldeployments/{name}"
        body = {
            "apiVersion": "rerank.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name},
            "spec": {"model": source, "replicas": 2},
        }
        api.apply(path, body)
        eventually("it has a status", lambda path=path: api.get(path).get("status"))  # type: ignore[misc]
    rows = table(kubectl(api.access, "get", "md", "-n", namespace))
    assert list(rows[0]) == ["NAME", "MODEL", "READY", "PHASE", "SCORING", "AGE"]
    assert [(row["NAME"], row["MODEL"], row["READY"], row["PHASE"]) for row in rows] == [
        ("hub", "BAAI/bge-reranker-v2-m3", "0/2", "Pending"),
        ("known", "no-such-entry", "0/2", "Failed"),
        ("oci", f"models/bge-m3@sha256:{'0' * 64}", "0/2", "Failed"),
        ("volume", "weights", "0/2", "Pending"),
    ]
    wide = table(kubectl(api.access, "get", "md", "-n", namespace, "-o", "wide"))
    assert list(wide[0])[-4:] == ["TOKENS/S", "REVISION", "ENDPOINT", "MESSAGE"]
    assert wide[0]["ENDPOINT"].startswith("http://rerank-gateway.")
    assert wide[0]["MESSAGE"]


def test_the_catalog_is_a_page_to_read(api: Api) -> None:
    """All that the chart brings, as the real API server prints it; each passes the schema."""
    for file in sorted(CATALOG.glob("*.yaml")):
        kubectl(api.access, "apply", "--server-side", f"--filename={file}")
    text = kubectl(api.access, "get", "catalogmodels")
    rows = {row["NAME"]: row for row in table(text)}
    columns = ["NAME", "MODEL", "PARAMETERS", "LICENSE", "LANGUAGES", "CONTEXT", "MEMORY", "AGE"]
    assert text.splitlines()[0].split() == columns
    assert max(map(len, text.splitlines())) < 200
    jina = rows["jina-reranker-v3"]
    assert jina.pop("AGE")
    assert jina == {
        "NAME": "jina-reranker-v3",
        "MODEL": "jinaai/jina-reranker-v3",
        "PARAMETERS": "0.6B",
        "LICENSE": "CC-BY-NC-4.0 (non-commercial only)",
        "LANGUAGES": "multilingual",
        "CONTEXT": "32768",
        "MEMORY": "5.8 GiB",
    }
    assert rows.keys() >= {file.stem for file in CATALOG.glob("*.yaml")}
    assert "DESCRIPTION" in kubectl(api.access, "get", "catalog", "-o", "wide").splitlines()[0]


def test_the_columns_of_keys(api: Api, namespace: str) -> None:
    path = f"{RERANK}/namespaces/{namespace}/apikeys/search"
    spec = {"secret": {"name": "search-key"}, "expiresAt": "2097-01-01T00:00:00Z"}
    metadata = {"name": "search"}
    api.apply(
        path, {"apiVersion": "rerank.dev/v1alpha1", "kind": "APIKey", "metadata": metadata, "spec": spec}
    )
    status = eventually("the key is there", lambda: api.get(path).get("status"))
    (row,) = table(kubectl(api.access, "get", "apikey", "-n", namespace))
    assert row.pop("AGE")
    assert row == {
        "NAME": "search",
        "HINT": status["hint"],
        "READY": "True",
        "REASON": "Active",
        "EXPIRES": "2097-01-01T00:00:00Z",
        "SECRET": "search-key",
        "LAST": "",
        "USED": "",
    }
    counts = {"requests": 7, "documents": 70, "tokens": 700, "rejected": 1}
    used = {"lastUsedTime": "2026-01-01T00:00:00Z", "usage": {**counts, "models": [{"name": "m", **counts}]}}
    api.merge(f"{path}/status", {"status": used})
    heading, wide = kubectl(api.access, "get", "apikey", "-n", namespace, "-o", "wide").splitlines()
    assert heading.split()[-5:] == ["USED", "AGE", "DESCRIPTION", "REQUESTS", "TOKENS"]
    assert wide.split()[-2:] == ["7", "700"]
    assert re.search(r"search-key +\d+[dy]", wide)
    described = kubectl(api.access, "describe", "apikey", "search", "-n", namespace)
    assert re.search(r"Last Used Time: +2026-01-01T00:00:00Z", described)
    assert re.search(r"Usage:\n +Documents: +70\n +Models:\n +Documents: +70\n +Name: +m\n", described)


def test_explain_reads_well(api: Api) -> None:
    text = " ".join(kubectl(api.access, "explain", "md.spec.model").split())
    assert "Give exactly one of catalog, huggingFace, persistentVolumeClaim and image." in text
    assert "A repository on the Hugging Face hub" in text
    text = " ".join(kubectl(api.access, "explain", "apikey.spec.models").split())
    assert "every one that is shared with it; an empty list means none." in text


def test_kubectl_scale(api: Api, namespace: str) -> None:
    path = f"{RERANK}/namespaces/{namespace}/modeldeployments/m"
    spec = {"model": {"huggingFace": {"repo": "demo/word-overlap"}}}
    metadata = {"name": "m"}
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata,
        "spec": spec,
    }
    api.apply(path, body)
    kubectl(api.access, "scale", "md", "m", "--replicas=3", "-n", namespace)
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/rerank-m"
    eventually("it is scaled", lambda: (api.find(deployment) or {}).get("spec", {}).get("replicas") == 3)


def test_describe_tells_the_story(api: Api, namespace: str) -> None:
    path = f"{RERANK}/namespaces/{namespace}/modeldeployments/m"
    spec = {"model": {"huggingFace": {"repo": "demo/word-overlap"}}}
    metadata = {"name": "m"}
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata,
        "spec": spec,
    }
    api.apply(path, body)

    def told() -> bool:
        text = kubectl(api.access, "describe", "md", "m", "-n", namespace)
        events = text.split("Events:")[-1]
        return "Warning" in events and "NoMatchingNode" in events and "there is no node" in events

    eventually("the events are part of the description", told)
