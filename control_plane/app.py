"""Puts the control plane together: settings, store, provider, worker, sentinel, routes.

One control plane serves one state directory: it holds `control/lock` for as long as it lives, so
every operation that it finds recorded as running belongs to a worker that is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from control_plane import api
from control_plane import settings as environment
from control_plane.autoscaler import Autoscaler
from control_plane.keeper import Keeper
from control_plane.minutes import Minutes
from control_plane.operations import Operation
from control_plane.pages import Pages
from control_plane.plane import ControlPlane
from control_plane.sampler import Sampler
from control_plane.sentinel import Sentinel
from control_plane.settings import Settings
from control_plane.steps import HANDLERS
from control_plane.store import open_store
from control_plane.worker import Worker
from control_plane.world import World
from infra.provider import Provider
from infra.topology import Topology, load
from runtime import collector
from runtime.clock import Clock, SystemClock
from runtime.errors import Refused, Unavailable

log = logging.getLogger(__name__)
RESTART_SECONDS = 1.0


def create() -> FastAPI:
    """The factory that uvicorn calls; everything comes from the environment."""
    log_lines()
    return build(environment.load())


def log_lines() -> None:
    """One line an event on stderr; of the libraries that tell every step only what went wrong."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name in ("httpx", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def build(settings: Settings, clock: Clock | None = None) -> FastAPI:
    """The application for the state directory of `settings`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with _alone(settings):
            async with _assemble(settings, clock or SystemClock()) as plane:
                app.state.plane = plane
                collector.spare()
                async with _background(plane):
                    yield

    app = FastAPI(
        title="regionctl control plane",
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    api.add_routes(app)
    return app


@asynccontextmanager
async def _assemble(settings: Settings, clock: Clock) -> AsyncIterator[ControlPlane]:
    topology = load(str(settings.state_dir / "topology.yaml"))
    token = await asyncio.to_thread(_read_token, settings)
    store = await open_store(settings.database_url, clock)
    try:
        await store.save_topology(topology.digest(), topology.name, asdict(topology))
        async with _provider(topology, settings, clock) as provider:
            sampler = Sampler(provider, clock, Minutes(store.database))
            pages = Pages(clock, store.bell)
            began = clock.monotonic()
            scaler = Autoscaler(provider, store, clock)
            yield ControlPlane(
                settings, provider, store, clock, token, began, sampler, pages, scaler
            )
    finally:
        await store.database.close()


@asynccontextmanager
async def _provider(
    topology: Topology, settings: Settings, clock: Clock
) -> AsyncIterator[Provider]:
    if topology.provider == "memory":
        from infra.memory import MemoryProvider

        yield MemoryProvider(topology, clock)
        return
    if topology.provider == "aws":
        from infra.aws.provider import AwsProvider

        yield AwsProvider(topology)
        return
    from infra.local.provider import LocalProvider

    local = LocalProvider(topology, settings.state_dir)
    try:
        yield local
    finally:
        await local.close()


@asynccontextmanager
async def _background(plane: ControlPlane) -> AsyncIterator[None]:
    """The worker, the keeper, the sampler, the autoscaler and, when failover is automatic, the
    sentinel run until the block ends."""

    def world_of(operation: Operation, results: Mapping[int, Any]) -> World:
        return World(
            provider=plane.provider,
            clock=plane.clock,
            store=plane.store,
            settings=plane.settings,
            operation_id=operation.id,
            plan=operation.plan,
            results=results,
        )

    worker = Worker(plane.store, HANDLERS, world_of, f"pid-{os.getpid()}")
    tasks = [asyncio.create_task(_keep("worker", worker.run), name="worker")]
    keeper = Keeper(plane.provider, plane.store, plane.clock)
    tasks.append(asyncio.create_task(_keep("keeper", keeper.run), name="keeper"))
    tasks.append(asyncio.create_task(_keep("sampler", plane.sampler.run), name="sampler"))
    scaler = plane.autoscaler
    tasks.append(asyncio.create_task(_keep("autoscaler", scaler.run), name="autoscaler"))
    if plane.topology.failover.automatic:
        sentinel = Sentinel(plane.provider, plane.store, plane.clock)
        tasks.append(asyncio.create_task(_keep("sentinel", sentinel.run), name="sentinel"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Runs for ever: what ends by a defect is logged and begun again."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("the %s ended; it is begun again", name)
        await asyncio.sleep(RESTART_SECONDS)


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Raises `Refused` while another control plane serves this state directory."""
    path = settings.control_dir / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Refused(
                f"Another control plane (pid {file.read().strip() or 'unknown'}) serves "
                f"{settings.state_dir}.",
                hint="regionctl doctor names it; it must end first.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _read_token(settings: Settings) -> str:
    try:
        return settings.token_file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise Unavailable(
            f"{settings.token_file} is missing.", hint="regionctl up makes it."
        ) from None
