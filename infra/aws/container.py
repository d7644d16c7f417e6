"""What a task on AWS runs: `python -m infra.aws.container run COMPONENT`, and `… health URL`.

The services know nothing of AWS: they read a file of secrets and a file with the shard map, as on
one machine. This process writes the first once, starts the program, and goes on as the keeper of
what changes: of a service the shard map, which the control plane publishes in S3; of a gateway the
addresses of the services, which ECS registers in Cloud Map. While AWS does not answer, the last
good file stays. It ends when the program does, with its exit code, and passes a stop on to it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import signal
import ssl
import sys
import urllib.request
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra import oauth_clients
from infra.aws import gateway
from infra.aws.naming import CONTROL_PLANE, GATEWAY
from infra.aws.spec import SERVICE_PORT
from infra.local import certificates, envoy
from infra.local.layout import replace_file

MAP_SECONDS, SERVERS_SECONDS = 1.0, 2.0
ANY_ADDRESS = "0.0.0.0"  # noqa: S104  # nosec B104 (inside its security group)
METADATA = "ECS_CONTAINER_METADATA_URI_V4"
HEALTH_SECONDS = 4.0
Environment = Mapping[str, str]
Keep = Callable[[], Coroutine[Any, Any, None]]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run", component]:
            return asyncio.run(run(component, os.environ))
        case ["health", url]:
            return health(url)
    sys.stderr.write("usage: python -m infra.aws.container run COMPONENT | health URL\n")
    return 2


def health(url: str) -> int:
    """0 when it answers 200. It is this very task, so nobody's certificate is asked for."""
    context = ssl._create_unverified_context()  # noqa: S323  # nosec B323
    try:
        with urllib.request.urlopen(url, timeout=HEALTH_SECONDS, context=context) as answer:  # noqa: S310  # nosec B310
            return 0 if answer.status == 200 else 1
    except OSError:
        return 1


async def run(component: str, given: Environment) -> int:
    """Prepares, starts the program, keeps its files, and returns its exit code."""
    folder = Path(given["REGIONCTL_FOLDER"])
    if component == GATEWAY:
        command, told = prepare_gateway(folder, given), dict(given)
        keep: Keep | None = lambda: _keep_servers(folder, given)  # noqa: E731
    elif component == CONTROL_PLANE:
        command, told, keep = _control_plane(given), prepare_control_plane(folder, given), None
    else:
        command, told = _service(given), prepare_service(given, _metadata(given))
        keep = lambda: _keep_map(given)  # noqa: E731
    process = await asyncio.create_subprocess_exec(*command, env=told)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.send_signal, number)
    keeper = asyncio.create_task(keep()) if keep else None
    code = await process.wait()
    if keeper:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
    return code if code >= 0 else 128 - code


def prepare_service(given: Environment, metadata: Mapping[str, Any]) -> dict[str, str]:
    """The file of secrets is there; the variables that the service is to see."""
    told = dict(given)
    replace_file(Path(given["REGIONCTL_SECRETS"]), told.pop("REGIONCTL_SECRETS_JSON"))
    zone = str(metadata.get("AvailabilityZone", "")).removeprefix(given["REGIONCTL_REGION"])
    task = str(metadata.get("TaskARN", "")).rpartition("/")[2][:8]
    told["REGIONCTL_ZONE"] = zone or "a"
    told["REGIONCTL_INSTANCE"] = (
        f"{given['REGIONCTL_SERVICE']}.{given['REGIONCTL_REGION']}{zone}"
        + (f".{task}" if task else "")
    )
    return told


def prepare_gateway(folder: Path, given: Environment) -> list[str]:
    """Envoy's files are there, with no servers yet; the command that starts it."""
    certificates.ensure(folder / "tls")
    for service in gateway.SERVICES:
        envoy.write_endpoints(folder, service, ())
    document = gzip.decompress(base64.b64decode(given["REGIONCTL_ENVOY"])).decode()
    replace_file(folder / "bootstrap.json", document)
    command = envoy.command(folder)
    command[command.index("--concurrency") + 1] = str(os.cpu_count() or 1)
    return command


def prepare_control_plane(folder: Path, given: Environment) -> dict[str, str]:
    """The topology, the root token and the files of the client programs are where the control plane
    reads them; its own database is in the variables."""
    told = dict(given)
    control = folder / "control"
    (control / "clients").mkdir(mode=0o700, parents=True, exist_ok=True)
    control.chmod(0o700)
    replace_file(control / "token", json.loads(told.pop("REGIONCTL_ROOT"))["token"])
    entry_url = told.pop("REGIONCTL_ENTRY_URL")
    for name, secret in json.loads(told.pop("REGIONCTL_CLIENTS")).items():
        text = oauth_clients.file(name, secret, entry_url)
        replace_file(control / "clients" / f"{name}.json", text)
    text = gzip.decompress(base64.b64decode(told.pop("REGIONCTL_TOPOLOGY"))).decode()
    replace_file(folder / "topology.yaml", text)
    told["REGIONCTL_DATABASE_URL"] = database_url(json.loads(told.pop("REGIONCTL_ADMINISTRATOR")))
    return told


def database_url(secret: Mapping[str, Any]) -> str:
    user, password = quote(secret["username"], safe=""), quote(secret["password"], safe="")
    where = f"{secret['host']}:{secret['port']}/{secret['dbname']}"
    return f"postgresql+asyncpg://{user}:{password}@{where}?ssl=verify-full"


def _service(given: Environment) -> list[str]:
    port = given["REGIONCTL_PORT"]
    return [
        *(sys.executable, "-m", "uvicorn", "runtime.app:create", "--factory"),
        *("--host", ANY_ADDRESS, "--port", port),
        *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "10"),
        *("--no-access-log", "--loop", "uvloop", "--http", "httptools"),
    ]


def _control_plane(given: Environment) -> list[str]:
    """On loopback: an operator comes by a session of AWS, which asks who he is."""
    return [
        *(sys.executable, "-m", "uvicorn", "control_plane.app:create", "--factory"),
        *("--host", "127.0.0.1", "--port", given["REGIONCTL_PORT"], "--log-level", "warning"),
        *("--no-access-log", "--timeout-graceful-shutdown", "1"),
    ]


def _metadata(given: Environment) -> Mapping[str, Any]:
    """What ECS says about this task; nothing outside of ECS."""
    if METADATA not in given:
        return {}
    with urllib.request.urlopen(f"{given[METADATA]}/task", timeout=5) as answer:  # noqa: S310  # nosec B310
        found: Mapping[str, Any] = json.load(answer)
    return found


async def _keep_map(given: Environment) -> None:
    """The file of the shard map is the newest that was published."""
    import boto3

    storage = boto3.client("s3", region_name=given["REGIONCTL_REGION"])
    where = {"Bucket": given["REGIONCTL_MAP_BUCKET"], "Key": given["REGIONCTL_MAP_KEY"]}
    seen = ""

    def fetch() -> None:
        nonlocal seen
        answer = storage.get_object(**where, **({"IfNoneMatch": seen} if seen else {}))
        text = answer["Body"].read().decode()
        json.loads(text)
        replace_file(Path(given["REGIONCTL_SHARD_MAP"]), text)
        seen = answer["ETag"]

    await _again_and_again(fetch, MAP_SECONDS)


async def _keep_servers(folder: Path, given: Environment) -> None:
    """Envoy's files have the addresses of the tasks that ECS has started and found well."""
    import boto3

    registry = boto3.client("servicediscovery", region_name=given["REGIONCTL_REGION"])
    known: dict[str, list[tuple[str, int]]] = {}

    def fetch() -> None:
        for service in given["REGIONCTL_SERVICES"].split(","):
            answer = registry.discover_instances(
                NamespaceName=given["REGIONCTL_NAMESPACE"],
                ServiceName=service,
                HealthStatus="HEALTHY_OR_ELSE_ALL",
                MaxResults=1000,
            )
            found = sorted(
                (one["Attributes"]["AWS_INSTANCE_IPV4"], SERVICE_PORT)
                for one in answer["Instances"]
            )
            if found != known.get(service):
                envoy.write_endpoints(folder, service, found)
                known[service] = found

    await _again_and_again(fetch, SERVERS_SECONDS)


async def _again_and_again(fetch: Callable[[], None], seconds: float) -> None:
    """Whatever AWS answers: the last good file is better than none."""
    from botocore.exceptions import BotoCoreError, ClientError

    while True:
        try:
            await asyncio.to_thread(fetch)
        except (BotoCoreError, ClientError, ValueError, OSError) as error:
            if "304" not in str(error):
                sys.stderr.write(f"not refreshed: {error}\n")
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
