"""What the operator writes into pods the runtime understands, and the other way round.

The two packages do not import one another: here alone they meet.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rerank_operator import causes, engine_flags, pod_status
from rerank_operator.builders.serve_options import VERIFICATION_VARIABLE
from rerank_runtime import cli, engine, verification
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.options import Device, Method, OnOverflow
from rerank_runtime.serve_plan import ServePlan, Truncation
from rerank_runtime.status import Download, Phase, Source, Status
from rerank_runtime.verification.cases import Case
from rerank_runtime.verification.observation import Answer
from rerank_runtime.verification.settings import Mode
from rerank_runtime.verification.verdict import Result
from tests.rerank_operator.test_builders import expanded

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "operator").glob("*.yaml"))


def containers(file: Path) -> list[dict[str, Any]]:
    (pod,) = [
        body["spec"]["template"]["spec"]
        for body in yaml.safe_load_all(file.read_text())
        if body["kind"] == "Deployment"
    ]
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_every_argument_is_understood(file: Path) -> None:
    """Parsed by the runtime's own command line, each to the value that was meant."""
    program: Any = typer.main.get_command(cli.app)
    for container in containers(file):
        name, *arguments = map(expanded, container["args"])
        with program.commands[name].make_context(name, list(arguments)) as context:
            given = {
                parameter.opts[0]: context.params[parameter.name or ""]
                for parameter in program.commands[name].params
                if parameter.name
            }
        for argument in arguments:
            option, _, value = argument.partition("=")
            if option == "--engine-arg":  # the one that may be repeated
                assert value in given[option], argument
            elif option.startswith("--"):
                assert str(given[option]) == (value or "True"), argument


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_verification_is_understood(file: Path) -> None:
    serve = containers(file)[-1]
    told = [v["value"] for v in serve["env"] if v["name"] == VERIFICATION_VARIABLE]
    assert verification.VARIABLE == VERIFICATION_VARIABLE
    found = verification.Settings.from_json(expanded("".join(told)))
    if file.stem == "engine-scoring-and-storage":
        assert found.mode is Mode.REPORT
        assert found.cases == (Case("Wie viel?", "Zwölf $.", 'Ein "Hut".'),)
    else:
        assert (found.mode, found.cases) == (Mode.REQUIRED, ())


def test_nobody_may_set_what_the_runtime_sets() -> None:
    decided = plan(
        split=2,
        hf_overrides={"a": 1},
        pooler_config={"b": 2},
        gpu_memory_utilization=0.5,
        template="{{ x }}",
        remote_code=True,
    )
    for device in Device:
        command = engine.command(
            decided,
            model=Path("/m"),
            name="m",
            device=device,
            host="::",
            port=1,
            template_path=Path("/t"),
            tokenizer=Path("/k"),
        )
        flags = {engine_flags.flag_of(item) for item in command if item.startswith("--")}
        # On a CPU it has to be, and on a GPU it may be.
        assert {flag for flag in flags if engine_flags.never(flag) is None} <= {"--enforce-eager"}


def plan(**changes: Any) -> ServePlan:
    return ServePlan(
        **{
            "family": "qwen3",
            "architecture": "Qwen3ForCausalLM",
            "method": Method.CROSS_ENCODER,
            "score_range": "[0,1]",
            "convert": "classify",
            "hf_overrides": {},
            "dtype": "bfloat16",
            "context_length": 8192,
            "parameters": 595776512,
            "weights_bytes": 1191553120,
            "memory_bytes": 3454380032,
            "template": "{{ query }} {{ document }}",
            "instruction": "Find it",
            "truncation": Truncation(512, 64, OnOverflow.REJECT),
            **changes,
        }
    )


CASE = Case("q", "r", "i")
STATUSES = {
    "downloading": Status(
        Phase.DOWNLOADING,
        message="The hub asks to wait.",
        source=Source("org/name", "c" * 40, "m-Q8_0.gguf"),
        download=Download(1, 2, None),
    ),
    "verifying": Status(Phase.VERIFYING, plan=plan(), identity="0f" * 16),
    "ready": Status(
        Phase.READY,
        source=Source("org/name", "c" * 40),
        plan=plan(template=None, instruction=None, max_documents=64, pointwise=False),
        verification=Result(None, (Answer(CASE, 0.9, 0.1),), Mode.REQUIRED, "2026-11-22T12:00:00Z"),
    ),
    "not a number": Status(
        Phase.FAILED,
        verification=Result(
            Failure(Reason.SCORES_NOT_FINITE, "NaN"), (Answer(CASE, float("nan"), 0.1),), Mode.REPORT
        ),
    ),
}


@pytest.mark.parametrize("name", STATUSES)
def test_every_report_is_understood(name: str) -> None:
    body = STATUSES[name].as_json()
    report = pod_status.parse(json.dumps(body).encode())
    assert report is not None
    read = report.model_dump(mode="json", by_alias=True, exclude_none=True)
    for part in ("phase", "message", "source", "download"):
        assert read.get(part) == body.get(part), part
    if report.model is not None:
        assert read["model"]["scoring"] == {
            key: value for key, value in body["model"]["scoring"].items() if key in read["model"]["scoring"]
        }
        assert {"dtype", "memoryBytes", "contextLength", "family", "prefixCaching"} <= read["model"].keys()
        assert read["model"]["scoring"]["pointwise"] is (name == "verifying")
        assert ("templateSha256" in read["model"]["scoring"]) is (name == "verifying")
        assert ("planDigest" in read["model"]["scoring"]) is (name == "verifying")
    if report.verification is not None:
        assert read["verification"]["mode"] == body["verification"]["mode"]
        assert read["verification"]["cases"] == body["verification"]["cases"]


def test_reasons_of_verification_are_those_of_the_runtime() -> None:
    known = {str(reason) for reason in Reason}
    assert known >= causes._VERIFICATION_REASONS
    scores = {word for word in known if word.startswith("Scores")}
    assert scores <= causes._VERIFICATION_REASONS
