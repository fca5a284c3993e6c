"""`python -m parity`: builds every family, serves and compares it, tries what is wrong, writes the page."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity import measure, table, wrong
from parity.measure import Row
from parity.sensitivity import BOUND
from parity.serving import ROOT, Chain, Refusal, Served, pythonpath
from parity.table import Ignored, Outcome
from parity.wrong import Wrong

_DISTRIBUTIONS = ("vllm", "torch", "transformers", "tokenizers")
# What vLLM's own route takes from anybody who reaches it.
_FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("truncate_prompt_tokens", {"truncate_prompt_tokens": 60}),
    ("use_activation", {"use_activation": False}),
    ("instruction", {"instruction": "Find invoices."}),
    ("chat_template_kwargs", {"chat_template_kwargs": {"instruction": "Find invoices."}}),
)
# Families that vLLM cannot split, as the plan knows.
_WHOLE = "modernbert"


def main() -> None:
    """Run the suite; exits 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m parity", description=__doc__)
    parser.add_argument("families", nargs="*", help="names; all of them where none is given")
    parser.add_argument("--python", type=Path, required=True, help="of the runtime's environment")
    parser.add_argument(
        "--work", type=Path, help="directory for logs and models, kept and used again; else a temporary one"
    )
    parser.add_argument("--split", type=int, default=1, help="parts of each model; then scores alone count")
    parser.add_argument("--write", type=Path, help="the page to write")
    arguments = parser.parse_args()
    # So that the programs end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    python = arguments.python.absolute()
    with tempfile.TemporaryDirectory(prefix="parity-") as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        families = build(python, work, arguments.families)
        if arguments.split > 1:
            sys.exit(_run_split(python, work, families, arguments.split))
        sys.exit(_run(python, work, families, arguments.write))


def _run_split(python: Path, work: Path, families: Sequence[dict[str, Any]], parts: int) -> int:
    """Every family once more, split over so many processes, as over GPUs."""
    bad: list[str] = []
    with Chain(python, work).running() as chain:
        for family in families:
            name, options = family["name"], [*family["options"], f"--split={parts}"]
            with chain.serving(name, work / name / "model", options) as served:
                if isinstance(served, Refusal):
                    print(f"{name}: {served.reason}: {served.message}", flush=True)
                    told = served.reason == "InvalidOptions" and name.startswith(_WHOLE)
                    found = [] if told else [f"{name}: it is not served"]
                else:
                    row = measure.compare(name, served, reference(work, name))
                    print(_line(row), flush=True)
                    found = [f"{name}: {failure}" for failure in table.failures(family, row)]
            bad += found
            print("\n".join(found), end="\n" if found else "", flush=True)
    print("\n".join(["", *(bad or [f"all as the cards say, in {parts} parts"])]), flush=True)
    return 1 if bad else 0


def _run(python: Path, work: Path, families: Sequence[dict[str, Any]], page: Path | None) -> int:
    rows: list[tuple[dict[str, Any], Row]] = []
    outcomes: list[Outcome] = []
    ignored: list[Ignored] = []
    bad: list[str] = []
    with Chain(python, work).running() as chain:
        for family in families:
            name = family["name"]
            with chain.serving(name, work / name / "model", family["options"]) as served:
                if isinstance(served, Refusal):
                    bad.append(f"{name}: {served.reason}: {served.message}")
                    print(bad[-1], flush=True)
                    continue
                row = measure.compare(name, served, reference(work, name))
                if name == "qwen3":
                    ignored += _fields(served, reference(work, name)[0])
            rows.append((family, row))
            found = [f"{name}: {failure}" for failure in table.failures(family, row)]
            bad += found
            print("\n".join([_line(row), *found]), flush=True)
        known = {family["name"]: family for family in families}
        for case in wrong.CASES:
            if case.family in known:
                outcomes.append(attempt(chain, work, known[case.family], case))
                print(_told(outcomes[-1]), flush=True)
    bad += [_told(outcome) for outcome in outcomes if not outcome.caught]
    bad += [f"{entry.field} moves scores" for entry in ignored if entry.difference > BOUND]
    if page:
        page.write_text(table.page(rows, outcomes, ignored, _versions(python)), encoding="utf-8")
    print("\n".join(["", *(bad or ["all as the cards say"])]), flush=True)
    return 1 if bad else 0


def build(python: Path, work: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Build families in the runtime's environment; returns what is known of each."""
    command = [str(python), "-m", "parity.build", str(work), *names]
    subprocess.run(command, check=True, cwd=ROOT, env=pythonpath())
    built = json.loads((work / "families.json").read_bytes())
    return [json.loads((work / name / "family.json").read_bytes()) for name in built]


def reference(work: Path, name: str) -> list[dict[str, Any]]:
    """What the card's computation says of a built family."""
    content: list[dict[str, Any]] = json.loads((work / name / "reference.json").read_bytes())
    return content


def attempt(chain: Chain, work: Path, family: dict[str, Any], case: Wrong) -> Outcome:
    """Serve a family wrongly and see what the runtime says of it."""
    model = work / case.family / "model"
    if case.without:
        model = work / "without" / "model"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(work / case.family / "model", model)
        (model / case.without).unlink()
    changes = dict(case.changes)
    if case.template:
        template = work / "wrong.jinja"
        template.write_text(case.template, encoding="utf-8")
        changes = {k: str(template) if v == wrong.TEMPLATE else v for k, v in changes.items()}
    options = family["options"] if case.options is None else case.options
    with chain.serving(case.family, model, options, changes) as served:
        if isinstance(served, Refusal):
            return Outcome(case, served.reason, "vLLM" if case.changes else "the plan", None)
        verification = served.status["verification"]
        reason = "" if verification["verified"] else str(verification["reason"])
        row = measure.compare(case.family, served, reference(work, case.family))
        difference = row.worst if row.difference else None
        return Outcome(case, reason, "verification" if reason else "nothing", difference)


def _fields(served: Served, expected: dict[str, Any]) -> list[Ignored]:
    """Ask with fields that would move scores, at the gateway and at the pod itself."""
    result = []
    for name, fields in _FIELDS:
        worst = 0.0
        for answer in (
            served.rerank(expected["query"], expected["documents"], **fields),
            served.rerank_pod(expected["query"], expected["documents"], **fields),
        ):
            if answer.status != 200:
                raise RuntimeError(f"{name}: {answer.status} {answer.body}")
            for entry in answer.body["results"]:
                off = abs(float(entry["relevance_score"]) - expected["scores"][entry["index"]])
                worst = max(worst, off)
        result.append(Ignored(name, worst))
    return result


def _line(row: Row) -> str:
    differences = ", ".join(f"{kind} {value:.1e}" for kind, value in row.difference.items())
    found = row.sensitivity
    counts = f"sensitive {found.total}, order {found.order}, tokens {row.tokens}"
    return f"{row.family}: {row.pairs} pairs, {differences}, tau {row.tau:.3f}, {counts}"


def _told(outcome: Outcome) -> str:
    case = outcome.wrong
    off = "" if outcome.difference is None else f" (scores off by {outcome.difference:.2g})"
    verdict = "" if outcome.caught else f", expected {' or '.join(case.reasons)}"
    return f"{case.family}, {case.what}: {outcome.caught_by} {outcome.reason}{verdict}{off}"


def _versions(python: Path) -> dict[str, str]:
    code = f"import importlib.metadata as m; print([m.version(n) for n in {_DISTRIBUTIONS!r}])"
    output = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout
    found = output.strip().strip("[]").replace("'", "").split(", ")
    return dict(zip(_DISTRIBUTIONS, found, strict=True))


if __name__ == "__main__":
    main()
