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

from rerank_runtime.options import Device, Method, OnOverflow, Options

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
Split = Annotated[
    int, typer.Option(min=1, help="Over how many GPUs the model is split (vLLM's tensor parallelism).")
]
Instruction = Annotated[
    str | None, typer.Option(help="What to look for, in words, for models whose prompt has a place for it.")
]
MaxModelLen = Annotated[
    int | None, typer.Option(min=1, help="Longest query and document together, in tokens.")
]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; auto chooses.")]
GpuMemoryUtilization = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Share of the GPU's memory that vLLM may claim.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python files of the model's repository.")
]
MaxTokensPerDocument = Annotated[int | None, typer.Option(min=1, help="Longest document, in tokens.")]
MaxTokensPerQuery = Annotated[int | None, typer.Option(min=1, help="Longest query, in tokens.")]
OverflowOption = Annotated[
    OnOverflow, typer.Option("--on-overflow", help="What happens to longer texts: Truncate or Reject.")
]
StatusPort = Annotated[int, typer.Option(help="Port of /livez, /readyz, /status and /drain.")]


@app.command()
def fetch(  # noqa: PLR0917 - typer reads options from parameters
    repo: Annotated[str, typer.Option(help="The repository, org/name.")],
    directory: Annotated[
        Path, typer.Option("--dir", help="Weights go to DIR/model, their origin to DIR/source.json.")
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    endpoint: Annotated[str | None, typer.Option(help="The hub's address, if not the public one.")] = None,
    file: Annotated[
        str | None, typer.Option(help="Which GGUF file to use, as a pattern such as *Q8_0.gguf.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep weights here, shared with others; DIR gets links to them.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002 - a flag of the command line
    status_port: StatusPort = 8081,
) -> None:
    """Download a model from a hub. The hub's token is taken from HF_TOKEN."""
    from rerank_runtime.fetch import Settings, run  # noqa: PLC0415

    _log()
    settings = Settings(
        repo=repo,
        revision=os.environ.get("RERANK_PINNED_REVISION") or revision,
        directory=directory,
        store=store,
        endpoint=endpoint or None,
        file=file or None,
        python=trust_remote_code,
        token=os.environ.get("HF_TOKEN") or None,
        status_port=status_port,
    )
    code = asyncio.run(run(settings))
    sys.stderr.flush()
    # Not sys.exit, which would wait for the downloads that a failure of one file left behind.
    os._exit(code)


@app.command()
def plan(  # noqa: PLR0917 - typer reads options from parameters
    directory: Directory,
    method: MethodOption = Method.AUTO,
    device: DeviceOption = Device.CPU,
    split: Split = 1,
    instruction: Instruction = None,
    max_model_len: MaxModelLen = None,
    dtype: Dtype = None,
    gpu_memory_utilization: GpuMemoryUtilization = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002 - a flag of the command line
    max_tokens_per_document: MaxTokensPerDocument = None,
    max_tokens_per_query: MaxTokensPerQuery = None,
    on_overflow: OverflowOption = OnOverflow.TRUNCATE,
) -> None:
    """Print how the model would be served, or why it would not, as JSON; exits 0 or 2."""
    from rerank_runtime import model_files  # noqa: PLC0415
    from rerank_runtime.failure import Failure  # noqa: PLC0415
    from rerank_runtime.plan import plan as decide  # noqa: PLC0415

    options = Options(
        method=method,
        device=device,
        split=split,
        instruction=instruction,
        max_model_len=max_model_len,
        dtype=None if dtype == "auto" else dtype,
        gpu_memory_utilization=gpu_memory_utilization,
        trust_remote_code=trust_remote_code,
        max_tokens_per_document=max_tokens_per_document,
        max_tokens_per_query=max_tokens_per_query,
        on_overflow=on_overflow,
    )
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
    split: Split = 1,
    instruction: Instruction = None,
    max_model_len: MaxModelLen = None,
    dtype: Dtype = None,
    gpu_memory_utilization: GpuMemoryUtilization = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002 - a flag of the command line
    max_tokens_per_document: MaxTokensPerDocument = None,
    max_tokens_per_query: MaxTokensPerQuery = None,
    on_overflow: OverflowOption = OnOverflow.TRUNCATE,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(help="A further flag for vLLM, as --engine-arg=--max-num-seqs=64. May be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of /v1/rerank.")] = 8000,
    status_port: StatusPort = 8081,
    verify_interval: Annotated[
        float, typer.Option(min=1.0, help="Seconds from one verification of a model that passed to the next.")
    ] = 600.0,
) -> None:
    """Serve the model with vLLM, ready once it is seen to score right.

    How to verify is taken from RERANK_VERIFICATION: JSON with a mode (Required, Report, Off) and cases.
    """
    from rerank_runtime import verification  # noqa: PLC0415
    from rerank_runtime.failure import Failure  # noqa: PLC0415
    from rerank_runtime.serve import Serve, Settings  # noqa: PLC0415
    from rerank_runtime.termination import write  # noqa: PLC0415
    from rerank_runtime.verifier import Intervals  # noqa: PLC0415

    _log()
    options = Options(
        method=method,
        device=device,
        split=split,
        instruction=instruction,
        max_model_len=max_model_len,
        dtype=None if dtype == "auto" else dtype,
        gpu_memory_utilization=gpu_memory_utilization,
        trust_remote_code=trust_remote_code,
        max_tokens_per_document=max_tokens_per_document,
        max_tokens_per_query=max_tokens_per_query,
        on_overflow=on_overflow,
    )
    try:
        wanted = verification.Settings.from_json(os.environ.get(verification.VARIABLE, ""))
    except Failure as failure:
        write(failure)
        typer.echo(failure.message, err=True)
        raise typer.Exit(1) from failure
    settings = Settings(
        directory=directory.absolute(),
        name=name or directory.absolute().name,
        options=options,
        engine_args=tuple(engine_arg or ()),
        verification=wanted,
        port=port,
        status_port=status_port,
        intervals=Intervals(again=verify_interval),
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
