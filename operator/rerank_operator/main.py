"""The program `rerank-operator`: settings, leadership, then kopf and the workers."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
from typing import Final

import kopf
import structlog
import uvloop

from rerank_api import names
from rerank_operator import (
    backend_master,
    builtin_catalog,
    config,
    handlers,
    login,
    name_claims,
    watches,
    workers,
)
from rerank_operator.api_error import ApiError
from rerank_operator.autoscaling import Autoscaled, Autoscaling
from rerank_operator.catalog import BuiltIn, CatalogModels, Users
from rerank_operator.claims import Claims
from rerank_operator.cluster import Cluster
from rerank_operator.events import Recorder
from rerank_operator.gateways import Gateways
from rerank_operator.handlers import API_KEY, MODEL
from rerank_operator.health import Health, Metrics
from rerank_operator.key_reconciler import KeyReconciler, known_hashes
from rerank_operator.lease import LeaderLease
from rerank_operator.listed import Listed
from rerank_operator.measuring import Measuring
from rerank_operator.model_reconciler import ModelReconciler
from rerank_operator.observe import Nodes, Reports
from rerank_operator.pod_status import Poller
from rerank_operator.resources import Object
from rerank_operator.resync import Resync
from rerank_operator.usage_collector import Collector
from rerank_operator.usage_ledger import Ledger
from rerank_operator.watchdog import Watchdog

DEFAULT_PORT: Final = 8081
_START_RETRY_SECONDS: Final = 2.0
# For what the gateways counted since it was last written (the next leader would find it too, only later), and
# for events that wait.
_LAST_WRITES_SECONDS: Final = 5.0
# For looks to be given up. One that cannot be is left to the end of the process.
_LAST_LOOKS_SECONDS: Final = 3.0

_log = structlog.get_logger()


def main() -> None:
    """Run until told to stop. Exit code 1 means that the process should be started again."""
    parser = argparse.ArgumentParser(prog="rerank-operator", description="Runs ModelDeployments and APIKeys.")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="livez, readyz and metrics (%(default)s)"
    )
    arguments = parser.parse_args()
    try:
        settings = config.from_environment(os.environ)
        directory = settings.catalog_directory
        entries = builtin_catalog.load(directory) if directory is not None else []
    except (ValueError, OSError) as error:
        sys.exit(f"rerank-operator: {error}")
    _set_up_logs(settings.log_level)
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(run(settings, entries, port=arguments.port))


async def run(settings: config.Settings, entries: list[Object], *, port: int) -> None:
    """The operator from its first request to its last. `entries` are the built-in ones of the catalog."""
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    api = await Cluster.connect(in_cluster=in_cluster)
    health = Health(metrics=Metrics(), unready="waiting for the API server")
    lease = LeaderLease(
        api=api,
        namespace=settings.namespace,
        name=settings.lease_name,
        identity=f"{settings.pod_name}_{uuid.uuid4()}",
    )
    api.may_write_for = lease.seconds_left
    api.on_write = lambda what: health.metrics.writes.labels(what).inc()
    # kopf replaces this when it starts; until then, as process 1 of a container, nobody else would listen.
    this = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: this and this.cancel())
    runner = await health.start(port)
    lag = asyncio.create_task(health.metrics.measure_loop_lag(), name="loop lag")
    poller = Poller()
    gateways = Gateways(settings.gateways_host, settings.gateways_port)
    try:
        await _until_served(api, catalog_models=settings.catalog_models)
        health.unready = ""  # a standby is ready too: it does what it is there for
        await lease.acquire()
        health.metrics.leading.set(1)
        keeper = asyncio.create_task(_keep(lease), name="lease")
        keeper.add_done_callback(_must_not_end)
        try:
            await _lead(
                settings,
                api,
                poller,
                health,
                gateways=gateways,
                entries=entries,
                in_cluster=in_cluster,
            )
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
    finally:
        await lease.release()
        await poller.close()
        await gateways.close()
        lag.cancel()
        await runner.cleanup()
        await api.close()


async def _lead(
    settings: config.Settings,
    api: Cluster,
    poller: Poller,
    health: Health,
    *,
    gateways: Gateways,
    entries: list[Object],
    in_cluster: bool,
) -> None:
    """What the leader does: until it is told to stop, or must.

    Raises:
        SystemExit: it ran and did not work; another process should.
    """
    metrics = health.metrics
    master = await backend_master.obtain(api, settings)
    queue = workers.new_queue(api.own)
    metrics.waiting.set_function(queue.__len__)
    watched = watches.Watches(
        handlers.watched(settings.watch_namespaces, catalog_models=settings.catalog_models)
    )
    metrics.watches.ages = watched.ages
    watchdog = Watchdog(watches=watched, queue=queue)
    health.fault = watchdog.fault
    recorder = Recorder(api=api, instance=settings.pod_name, busy=lambda: len(queue) > 0)
    listed = Listed(api, settings.watch_namespaces)
    users = Users()
    autoscaled = Autoscaled()
    models = ModelReconciler(
        api=api,
        listed=listed,
        reports=Reports(asker=poller),
        recorder=recorder,
        settings=settings,
        users=users,
        metrics=metrics.models,
        autoscaled=autoscaled,
        entries=CatalogModels(api)
        if settings.catalog_models
        else BuiltIn({entry["metadata"]["name"]: entry for entry in entries}),
        claims=Claims(name_claims.known_names(listed)),
        wake=lambda namespace, name: queue.add((MODEL, namespace, name)),
        nodes=Nodes(api=api, readable=not settings.watch_namespaces),
        backend_master=master,
    )
    keys = KeyReconciler(
        api=api,
        listed=listed,
        recorder=recorder,
        claims=Claims(known_hashes(listed)),
        wake=lambda namespace, name: queue.add((API_KEY, namespace, name)),
    )
    autoscaling = Autoscaling(
        api=api,
        gateways=gateways,
        recorder=recorder,
        autoscaled=autoscaled,
        metrics=metrics,
        wake=models.wake,
    )
    collector = Collector(
        api=api,
        gateways=gateways,
        metrics=metrics,
        ledger=Ledger(write_seconds=settings.usage_write_seconds),
        poll_seconds=settings.usage_poll_seconds,
    )
    resync = Resync(api=api, queue=queue, namespaces=settings.watch_namespaces)
    reconcilers = {MODEL: models.reconcile, API_KEY: keys.reconcile}
    tasks = [
        asyncio.create_task(workers.work(queue, reconcilers, metrics, resync), name=f"worker {number}")
        for number in range(workers.WORKERS)
    ]
    tasks.append(asyncio.create_task(resync.run(), name="resync"))
    tasks.append(asyncio.create_task(recorder.run(), name="events"))
    if settings.catalog_models:
        tasks.append(asyncio.create_task(builtin_catalog.install(api, entries), name="catalog"))
    tasks.append(asyncio.create_task(collector.run(), name="usage"))
    tasks.append(asyncio.create_task(autoscaling.run(), name="autoscaling"))
    tasks.append(asyncio.create_task(Measuring(api=api, gateways=gateways).run(), name="measuring"))
    guard = asyncio.create_task(_stop_at_fault(watchdog), name="watchdog")
    tasks.append(guard)
    for task in tasks:
        task.add_done_callback(_must_not_end)
    try:
        await kopf.operator(
            registry=handlers.registry(
                queue,
                listed,
                users,
                login.login(watched, in_cluster=in_cluster),
                catalog_models=settings.catalog_models,
            ),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_LAST_LOOKS_SECONDS)
        with contextlib.suppress(TimeoutError):
            last = asyncio.gather(collector.collect(everything=True), recorder.post())
            await asyncio.wait_for(last, _LAST_WRITES_SECONDS)
    if not guard.cancelled():
        sys.exit(1)


async def _keep(lease: LeaderLease) -> None:
    """Renew the Lease; when it is lost, be gone before anything else is written."""
    await lease.keep()
    _log.error("the lease is lost")
    os._exit(1)


async def _stop_at_fault(watchdog: Watchdog) -> None:
    """Stop as if told to: usage is written and the Lease handed back, so that another one leads at once."""
    _log.error("stopping, for another process to go on", fault=await watchdog.until_fault())
    signal.raise_signal(signal.SIGTERM)


def _must_not_end(task: asyncio.Task[None]) -> None:
    """A worker that ended by itself would leave the process alive and idle: end it, to be started again."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("a task ended", task=task.get_name(), exc_info=task.exception())
        os._exit(1)


async def _until_served(api: Cluster, *, catalog_models: bool) -> None:
    """Wait for the API server to know our resources: kopf looks for them once, when it starts."""
    wanted = {"modeldeployments", "apikeys"} | ({"catalogmodels"} if catalog_models else set())
    said = False
    while True:
        try:
            missing = wanted - await api.serves(names.API_VERSION)
        except ApiError as error:
            missing = {str(error)}
        if not missing:
            return
        if not said:
            _log.info("waiting for the API server to serve our resources", missing=sorted(missing))
            said = True
        await asyncio.sleep(_START_RETRY_SECONDS)


def _set_up_logs(level: str) -> None:
    """One JSON object a line, ours and the libraries'."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # one line for each event of each object
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
