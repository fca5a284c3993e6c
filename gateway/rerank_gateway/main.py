"""The program `rerank-gateway`."""

import asyncio
import importlib.metadata
import os
import signal
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from rerank_gateway import api_server, config, log
from rerank_gateway.api_server import NoApiServerError
from rerank_gateway.config import InvalidSettingsError, Settings
from rerank_gateway.folder import Folder, InvalidFolderError
from rerank_gateway.gateway import Gateway, listen
from rerank_gateway.reflector import Cluster
from rerank_gateway.source import Source
from rerank_gateway.state import State
from rerank_gateway.tokens import BackendTokens

_log = structlog.get_logger("rerank_gateway")


def serve(
    config_dir: Annotated[
        Path | None, typer.Option(help="Read objects from YAML files here instead of from Kubernetes.")
    ] = None,
    port: Annotated[int, typer.Option(help="For clients.", min=0, max=65535)] = 8080,
    internal_port: Annotated[int, typer.Option(help="For probes and metrics.", min=0, max=65535)] = 8081,
) -> None:
    """Serve POST /v1/rerank for every model of the cluster, or of a folder of YAML files."""
    log.configure()
    try:
        settings = config.from_environment(os.environ)
        log.configure(settings.log_level)
        uvloop.run(_serve(settings, config_dir, port, internal_port))
    except (InvalidSettingsError, InvalidFolderError, NoApiServerError) as error:
        _log.error("cannot_start", reason=str(error))
        raise typer.Exit(2) from None


async def _serve(settings: Settings, config_dir: Path | None, port: int, internal_port: int) -> None:
    def source(state: State) -> Source:
        if config_dir is None:
            return Cluster(api_server.find(os.environ), settings.namespaces, state, settings.own_namespace)
        folder = Folder(config_dir, state)
        folder.load()
        return folder

    try:
        tokens = BackendTokens.from_file(settings.backend_token_file)
        sockets = listen(port), listen(internal_port)
    except (OSError, ValueError) as error:
        raise InvalidSettingsError(str(error)) from error
    gateway = Gateway(settings, tokens, source, version=_version())
    loop = asyncio.get_running_loop()
    # A second signal, and Ctrl-C, do not wait for proxies to stop sending.
    loop.add_signal_handler(signal.SIGTERM, _on_sigterm, gateway)
    loop.add_signal_handler(signal.SIGINT, lambda: gateway.stop(at_once=True))
    await gateway.run(*sockets)


def _on_sigterm(gateway: Gateway) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: gateway.stop(at_once=True))
    gateway.stop()


def _version() -> str:
    try:
        return importlib.metadata.version("rerank-operator")
    except importlib.metadata.PackageNotFoundError:  # run from the source tree
        return "0+source"


def main() -> None:
    # Plain tracebacks: typer's own print local variables, keys among them.
    program = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    program.command()(serve)
    program()
