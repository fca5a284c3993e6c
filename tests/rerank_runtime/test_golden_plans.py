"""What is decided about models as they are published, and about hostile ones: golden.

`tests/golden/models` holds what the plan reads of a model (published configurations, weights by shape alone),
`tests/golden/plans` the decision. `UPDATE_GOLDEN=1 pytest …` writes the decisions anew, for review.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_runtime import engine, families, model_files
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.model_files import MAX_CONFIG_BYTES
from rerank_runtime.options import Device, Method, OnOverflow, Options
from rerank_runtime.plan import plan
from tests.rerank_runtime.support import BERT, MODULES, XLM_R, cross_encoder, embedding

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "models").glob("*.yaml"))
_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}


@pytest.mark.parametrize("name", CASES)
def test_the_decision_is_as_in_the_golden_file(name: str, tmp_path: Path) -> None:
    case = yaml.safe_load((GOLDEN / "models" / f"{name}.yaml").read_text(encoding="utf-8"))
    decision = decide(case, tmp_path)
    golden = GOLDEN / "plans" / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(json.dumps(decision, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert decision == json.loads(golden.read_text(encoding="utf-8"))
    # It must fit into a termination message with all else.
    assert len(decision.get("refusal", {}).get("message", "")) < 1000


def test_each_golden_decision_has_its_model() -> None:
    assert sorted(path.stem for path in (GOLDEN / "plans").glob("*.json")) == CASES


def test_each_family_has_a_plan() -> None:
    decided = [json.loads(path.read_text(encoding="utf-8")) for path in (GOLDEN / "plans").glob("*.json")]
    architectures = {body["plan"]["architecture"] for body in decided if "plan" in body}
    # Two other names of one kind, of which one is refused, and embedding models of kinds that have a plan.
    missing = set(families.SUPPORTED) - architectures
    assert missing == {
        "GteNewForSequenceClassification",
        "GteForSequenceClassification",
        "RobertaModel",
        "XLMRobertaModel",
    }


def decide(case: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    directory = write(case, tmp_path / "model")
    options = dict(case.get("options", {}))
    for key, kind in (("method", Method), ("device", Device), ("on_overflow", OnOverflow)):
        if key in options:
            options[key] = kind(options[key])
    if "gpu_capability" in options:
        options["gpu_capability"] = tuple(options["gpu_capability"])
    wanted = Options(**options)
    try:
        decided = plan(model_files.read(directory), wanted)
    except Failure as failure:
        return {"refusal": failure.as_json()}
    command = engine.command(
        decided,
        model=Path("/model"),
        name="m",
        device=wanted.device,
        host="::",
        port=8000,
        template_path=Path("/template.jinja"),
    )
    body: dict[str, Any] = {"plan": decided.as_json(), "command": command}
    if decided.template is not None:
        body["prompt"] = decided.render("QUERY", "DOCUMENT")
    return body


def write(case: dict[str, Any], directory: Path) -> Path:
    """A model's directory as the case describes it; its weights are holes of the right size."""
    directory.mkdir()
    for name, content in case.get("files", {}).items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    for name in case.get("python", []):
        (directory / name).write_text("raise SystemExit('this must not be run')")
    if case.get("repo"):
        source = {"repo": case["repo"], "revision": "0" * 40}
        (directory.parent / "source.json").write_text(json.dumps(source))
    if "weights" in case:
        write_weights(case["weights"], directory / "model.safetensors")
        vocabulary = {"model": {"vocab": case.get("tokens", {})}}
        (directory / "tokenizer.json").write_text(json.dumps(vocabulary))
    return directory


def write_weights(weights: dict[str, Any], path: Path) -> None:
    shapes = {name: list(shape) for name, shape in weights.get("tensors", {}).items()}
    counted = sum(shape[0] * shape[1] for shape in shapes.values())
    shapes["all.others"] = [weights["parameters"] - counted]
    header, offset = {}, 0
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        end = offset + count * _SIZES[weights["dtype"]]
        header[name] = {"dtype": weights["dtype"], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    content = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        file.truncate(8 + len(content) + offset)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 200_000 + b"]" * 200_000, "not valid JSON"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "not valid JSON"),
        (b'{"a": "' + b"x" * MAX_CONFIG_BYTES + b'"}', "larger than 4 MiB"),
        (b'{"hidden_size": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"\xff\xfe\x00{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"null", "There is no config.json"),
    ],
    ids=["nested-lists", "nested-objects", "huge", "long-number", "no-utf-8", "empty", "null"],
)
def test_configurations_that_no_parser_should_swallow_are_refused(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(Failure, match=says) as refusal:
        model_files.read(tmp_path)
    assert refusal.value.reason == Reason.FILE_MISSING


_KEYS = sorted(
    set(BERT)
    | set(XLM_R)
    | {
        "auto_map",
        "classifier_pooling",
        "head_dim",
        "intermediate_size",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_labels",
        "pooling",
        "position_embedding_type",
        "problem_type",
        "quantization_config",
        "sbert_ce_default_activation_function",
        "sentence_transformers",
    }
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    architecture=st.sampled_from(families.SUPPORTED),
    changes=st.dictionaries(st.sampled_from(_KEYS), _JSON, max_size=4),
    other=st.dictionaries(
        st.sampled_from(["prompts", "activation_fn", "model_type", "similarity_fn_name"]), _JSON, max_size=3
    ),
    method=st.sampled_from(Method),
    trusted=st.booleans(),
)
def test_any_configuration_is_planned_or_refused(
    architecture: str, changes: dict[str, Any], other: dict[str, Any], method: Method, trusted: bool
) -> None:
    build = embedding if method is Method.COSINE else cross_encoder
    config = {"architectures": [architecture], "num_hidden_layers": 2} | changes
    files = build(config, sentence_transformers=other, tokenizer_config=other, modules=MODULES[:1])
    try:
        decided = plan(files, Options(method, trust_remote_code=trusted)).as_json()
    except Failure as failure:
        decided = dict(failure.as_json())
    json.dumps(decided, allow_nan=False)
