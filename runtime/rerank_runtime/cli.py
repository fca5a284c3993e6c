"""The program `rerank-runtime`. Commands import what they need when they run, so that `drain` starts fast."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rerank_runtime.plan import Device, Method

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fetch, plan, serve and drain a reranker.",
)

Directory = Annotated[Path, typer.Argument(help="The model's directory.")]
MethodOption = Annotated[
    Method, typer.Option("--method", help="How pairs are scored: Auto, CrossEncoder or Cosine.")
]
DeviceOption = Annotated[
    Device, typer.Option("--device", envvar="RERANK_DEVICE", help="What the model runs on: cpu or cuda.")
]
StatusPort = Annotated[int, typer.Option(help="Port of /livez, /readyz, /status and /drain.")]


@app.command()
def fetch(
    repo: Annotated[str, typer.Option(help="The repository, org/name.")],
    directory: Annotated[
        Path, typer.Option("--dir", help="Weights go to DIR/model, their origin to DIR/source.json.")
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    endpoint: Annotated[str | None, typer.Option(help="The hub's address, if not the public one.")] = None,
    status_port: StatusPort = 8081,
) -> None:
    """Download a model from a hub. The hub's token is taken from HF_TOKEN."""
    from rerank_runtime.fetch import Settings, run  # noqa: PLC0415

    _log()
    settings = Settings(
        repo=repo,
        revision=os.environ.get("RERANK_PINNED_REVISION") or revision,
        directory=directory,
        endpoint=endpoint or None,
        token=os.environ.get("HF_TOKEN") or None,
        status_port=status_port,
    )
    code = asyncio.run(run(settings))
    sys.stderr.flush()
    # Not sys.exit, which would wait for the downloads that a failure of one file left behind.
    os._exit(code)


@app.command()
def plan(directory: Directory, method: MethodOption = Method.AUTO, device: DeviceOption = Device.CPU) -> None:
    """Print how the model would be served, or why it would not, as JSON; exits 0 or 2."""
    from rerank_runtime import model_files  # noqa: PLC0415
    from rerank_runtime.failure import Failure  # noqa: PLC0415
    from rerank_runtime.plan import Options  # noqa: PLC0415
    from rerank_runtime.plan import plan as decide  # noqa: PLC0415

    options = Options(method, device)
    try:
        decided = decide(model_files.read(directory), options)
    except Failure as failure:
        typer.echo(json.dumps(failure.as_json()))
        raise typer.Exit(2) from failure
    typer.echo(json.dumps(decided.as_json()))


@app.command()
def serve(  # noqa: PLR0917 - typer reads options from parameters
    directory: Directory,
    name: Annotated[str, typer.Option(help="The name that requests use for the model.")] = "",
    method: MethodOption = Method.AUTO,
    device: DeviceOption = Device.CPU,
    port: Annotated[int, typer.Option(help="Port of /v1/rerank.")] = 8000,
    status_port: StatusPort = 8081,
    verify_interval: Annotated[float, typer.Option(help="Seconds between attempts to verify.")] = 60.0,
) -> None:
    """Serve the model with vLLM, ready once it is seen to score right."""
    from rerank_runtime.serve import Serve, Settings  # noqa: PLC0415

    _log()
    settings = Settings(
        directory=directory.absolute(),
        name=name or directory.absolute().name,
        method=method,
        device=device,
        port=port,
        status_port=status_port,
        verify_interval=verify_interval,
    )

    async def run() -> int:
        return await Serve(settings).run()

    sys.exit(asyncio.run(run()))


@app.command()
def drain(status_port: StatusPort = 8081) -> None:
    """Let the pod take no new requests, and return when none is in flight."""
    from rerank_runtime.drain import drain as wait  # noqa: PLC0415

    try:
        left = wait(status_port)
    except OSError as error:
        typer.echo(f"the pod's status port does not answer: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"drained, {left} in flight")


def main() -> None:
    """Run the program."""
    app()


def _log() -> None:
    logging.basicConfig(
        level=logging.WARNING, format="rerank-runtime %(levelname)s %(message)s", stream=sys.stderr
    )
    # Ours alone: HTTP clients log addresses, and those of a hub's CDN are signed.
    logging.getLogger("rerank_runtime").setLevel(logging.INFO)
