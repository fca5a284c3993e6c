"""Specs for property tests: such as the API server admits, and some that the operator refuses."""

from hypothesis import strategies as st

from rerank_operator.policy import Policy
from rerank_operator.resources import Object
from tests.rerank_operator.samples import COMMIT
from tests.rerank_operator.test_catalog import entry

POLICY = Policy(
    images=frozenset({"registry.example/"}),
    extra_args=frozenset({"--max-num-seqs"}),
    remote_code=frozenset({f"org/name@{COMMIT}"}),
)
LISTED = entry(
    "listed",
    memory="18 GiB",
    source={"huggingFace": {"repo": "org/name", "revision": "main"}},
    defaults={"resources": {"memory": "16Gi"}, "scoring": {"instruction": "Find it"}},
)

HUB: Object = {"huggingFace": {"repo": "org/name"}}
PINNED: Object = {"huggingFace": {"repo": "org/name", "revision": COMMIT}}
ABSENT: Object = {"catalog": "absent"}
SOURCES = st.sampled_from(
    [
        HUB,
        PINNED,
        {"huggingFace": {"repo": "org/name", "file": "*.gguf", "tokenSecretRef": {"name": "hf"}}},
        {"catalog": "listed"},
        ABSENT,
        {"persistentVolumeClaim": {"claimName": "weights", "path": "models"}},
        {"image": {"reference": "registry.example/weights@sha256:" + "0" * 64}},
    ]
)
CODE: Object = {"trustRemoteCode": True}
FORBIDDEN: list[Object] = [{"image": "elsewhere/x:1"}, {"extraArgs": ["--port=1"]}]
ENGINES = st.sampled_from(
    [
        {"maxModelLen": 512, "dtype": "float16"},
        {"gpuMemoryUtilization": 0.5},
        {"image": "registry.example/own:1", "extraArgs": ["--max-num-seqs=4"]},
        CODE,
        *FORBIDDEN,
    ]
)
CASE = {"query": "$(HOME)", "relevant": "a", "irrelevant": "b"}
FIELDS = st.fixed_dictionaries(
    {"model": SOURCES, "replicas": st.integers(0, 3)},
    optional={
        "resources": st.sampled_from(
            [
                {"gpu": {"count": 0}},
                {"gpu": {"minMemory": "24G"}},
                {"gpu": {"count": 2, "products": ["NVIDIA-L4"]}},
                {"gpu": {"resourceClaimTemplateName": "gpu-24g"}},
                {"memory": "4Gi"},
                {"cpu": "500m"},
            ]
        ),
        "scheduling": st.sampled_from([{"nodeSelector": {"a": "b"}}, {"topologySpreadConstraints": []}]),
        "rollout": st.fixed_dictionaries({"strategy": st.sampled_from(["Auto", "Surge", "Recreate"])}),
        "storage": st.sampled_from(
            [{"ephemeral": {"sizeLimit": "20Gi"}}, {"persistentVolumeClaim": {"claimName": "cache"}}]
        ),
        "aliases": st.just(["other"]),
        "access": st.just({"namespaces": ["another-team"]}),
        "autoscaling": st.sampled_from([{"maxReplicas": 2}, {"minReplicas": 0, "maxReplicas": 4}]),
        "engine": ENGINES,
        "scoring": st.sampled_from(
            [
                {"method": "Cosine", "cacheScores": True},
                {"instruction": "Find it", "truncation": {"onOverflow": "Reject", "maxTokensPerQuery": 64}},
                {"verification": {"mode": "Report", "cases": [CASE]}},
                {"verification": {"mode": "Off"}},
            ]
        ),
    },
)


def as_admitted(spec: Object) -> Object:
    """Without what the API server refuses beside weights that are not downloaded."""
    if spec["model"].keys() & {"huggingFace", "catalog"}:
        return spec
    return {name: part for name, part in spec.items() if name != "storage" and part != CODE}


SPECS = FIELDS.map(as_admitted)


def is_refused(spec: Object) -> bool:
    """Whether it asks for what is not there, or what POLICY forbids."""
    engine = spec.get("engine", {})
    return spec["model"] == ABSENT or engine in FORBIDDEN or (engine == CODE and spec["model"] != PINNED)


def needs_pin(spec: Object) -> bool:
    """Whether the first replica finds out what commit is meant."""
    return spec["model"] != PINNED and bool(spec["model"].keys() & {"huggingFace", "catalog"})
