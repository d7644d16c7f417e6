"""Every task runs the same image; this is what each container is told. Pure.

A container runs `python -m infra.aws.container COMPONENT` (`infra/aws/container.py`), as a user
without rights, on a file system that it cannot write but in its own folder (that of the control
plane is writable, for the sessions of operators). Addresses that AWS makes up come from the
parameter store and passwords from Secrets Manager, both by name, so a task definition is known
before anything exists.
"""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Any

from infra.aws import gateway
from infra.aws.naming import CACHE, CLIENTS, CONTROL, CONTROL_PLANE, GATEWAY, OBJECTS, ROOT
from infra.aws.spec import Platform, RegionSpec, TaskSpec

JSON = dict[str, Any]
# As the Dockerfile has them.
USER = "10001"
FOLDER = Path("/run/regionctl")
VOLUME = "run"
# The authorities that sign the certificates of Aurora; no system trusts them by itself.
BUNDLE = Path("/etc/ssl/certs/rds-global-bundle.pem")
STOP_SECONDS = 30
FILES = 65_536
HEALTH_SECONDS, HEALTH_RETRIES, START_SECONDS = 10, 3, 60
ENTRY = ("python", "-m", "infra.aws.container")


def repository(platform: Platform, region: RegionSpec, account: str) -> str:
    return f"{account}.dkr.ecr.{region.name}.amazonaws.com/{platform.names.repository()}"


def image(platform: Platform, region: RegionSpec, account: str) -> str:
    """By digest when the topology has one: then nobody can put another image in its place."""
    aws = platform.aws
    pin = f"@{aws.image_digest}" if aws.image_digest else f":{aws.image_tag}"
    return repository(platform, region, account) + pin


def parameter_arn(platform: Platform, region: RegionSpec, account: str, what: str) -> str:
    return f"arn:aws:ssm:{region.name}:{account}:parameter{platform.names.parameter(what)}"


def secret_arn(platform: Platform, region: RegionSpec, account: str, purpose: str) -> str:
    """Without the six characters that AWS appends: enough to read it by."""
    return f"arn:aws:secretsmanager:{region.name}:{account}:secret:{platform.names.secret(purpose)}"


def secrets(platform: Platform, task: TaskSpec) -> dict[str, str]:
    """Variable → the secret's purpose: what is kept from everybody else."""
    if task.component == GATEWAY:
        return {}
    if task.component == CONTROL_PLANE:
        return {
            "REGIONCTL_ADMINISTRATOR": platform.names.administrator(CONTROL),
            "REGIONCTL_CLIENTS": CLIENTS,
            "REGIONCTL_ROOT": ROOT,
        }
    return {"REGIONCTL_SECRETS_JSON": task.component}


def parameters(task: TaskSpec) -> dict[str, str]:
    """Variable → the parameter: addresses that AWS makes up."""
    if task.component in (GATEWAY, CONTROL_PLANE):
        return {}
    return {"REGIONCTL_CACHE": CACHE}


def environment(platform: Platform, region: RegionSpec, task: TaskSpec) -> dict[str, str]:
    """See `runtime/settings.py`, `control_plane/settings.py` and `infra/aws/container.py`."""
    names, external = platform.names, platform.topology.external
    common = {
        "AWS_REGION": region.name,
        "REGIONCTL_REGION": region.name,
        "REGIONCTL_FOLDER": str(FOLDER),
        "OTEL_EXPORTER_OTLP_ENDPOINT": platform.topology.otlp_endpoint,
    }
    if task.component == GATEWAY:
        document = gateway.bootstrap(
            node=f"gateway.{region.name}",
            issuer=f"https://{names.entry()}",
            port=task.port,
            folder=FOLDER,
        )
        own = {
            "REGIONCTL_ENVOY": gateway.packed(document),
            "REGIONCTL_NAMESPACE": names.namespace(region.name),
            "REGIONCTL_SERVICES": ",".join(platform.topology.services),
        }
    elif task.component == CONTROL_PLANE:
        own = {
            "PGSSLROOTCERT": str(BUNDLE),
            "REGIONCTL_ENTRY_URL": f"https://{names.entry()}",
            "REGIONCTL_STATE": str(FOLDER),
            "REGIONCTL_PORT": str(task.port),
            "REGIONCTL_TOPOLOGY": packed(platform.text),
        }
    else:
        own = {
            "REGIONCTL_SERVICE": task.component,
            "REGIONCTL_SECRETS": str(FOLDER / "secrets.json"),
            "REGIONCTL_SHARD_MAP": str(FOLDER / "shard-map.json"),
            "REGIONCTL_MAP_BUCKET": names.bucket(OBJECTS, region.name),
            "REGIONCTL_MAP_KEY": map_key(region.name),
            "REGIONCTL_ENTRY_URL": f"https://{names.entry()}",
            "REGIONCTL_PORT": str(task.port),
            "REGIONCTL_PAYMENT_GATEWAY": external.payment_gateway,
            "REGIONCTL_SMTP": external.smtp,
            "REGIONCTL_SMTP_TLS": external.smtp_tls if external.smtp else "",
            "REGIONCTL_TLS_CA": str(BUNDLE),
            "REGIONCTL_OBJECTS": f"https://s3.{region.name}.amazonaws.com",
            "REGIONCTL_OBJECTS_BUCKET": names.bucket(OBJECTS, region.name),
        }
    return {name: value for name, value in sorted((common | own).items()) if value}


def map_key(region: str) -> str:
    """Where the control plane publishes a region's shard map (`infra/aws/maps.py`)."""
    return f"control/{region}/shard-map.json"


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def container(
    platform: Platform, region: RegionSpec, task: TaskSpec, account: str, log_group: str
) -> JSON:
    """The one container of a task, as ECS writes it."""
    told = environment(platform, region, task)
    kept = [
        {"name": name, "valueFrom": secret_arn(platform, region, account, purpose)}
        for name, purpose in sorted(secrets(platform, task).items())
    ]
    kept += [
        {"name": name, "valueFrom": parameter_arn(platform, region, account, what)}
        for name, what in sorted(parameters(task).items())
    ]
    scheme = "https" if task.component == GATEWAY else "http"
    url = f"{scheme}://127.0.0.1:{task.port}{task.health_path}"
    return {
        "name": task.component,
        "image": image(platform, region, account),
        "essential": True,
        "user": USER,
        # A session of an operator (ECS Exec) is carried by an agent that writes there.
        "readonlyRootFilesystem": task.component != CONTROL_PLANE,
        "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
        "mountPoints": [{"sourceVolume": VOLUME, "containerPath": str(FOLDER), "readOnly": False}],
        "entryPoint": list(ENTRY),
        "command": ["run", task.component],
        "portMappings": [{"containerPort": task.port, "protocol": "tcp"}],
        "environment": [{"name": name, "value": value} for name, value in told.items()],
        "secrets": kept,
        "healthCheck": {
            "command": ["CMD", *ENTRY, "health", url],
            "interval": HEALTH_SECONDS,
            "timeout": 5,
            "retries": HEALTH_RETRIES,
            "startPeriod": START_SECONDS,
        },
        "stopTimeout": STOP_SECONDS,
        "ulimits": [{"name": "nofile", "softLimit": FILES, "hardLimit": FILES}],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": log_group,
                "awslogs-region": region.name,
                "awslogs-stream-prefix": task.component,
                "mode": "non-blocking",
                "max-buffer-size": "25m",
            },
        },
    }
