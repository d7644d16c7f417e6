"""What a first run on AWS takes, in order, as commands to type. Pure.

One `infra up` makes everything. Early it makes the domain's zone and the image repositories, and
then it waits for certificates, which need the domain: so the domain is delegated and the image is
pushed while it runs. Deployments that ECS gave up before there was an image or a shard map are
begun again by what provisions (`operate/scale`), but for the control plane's own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.aws.naming import CLIENTS, CONTROL_PLANE, ROOT
from infra.aws.spec import CONTROL_PORT, Platform

# Docker's names for the architectures of ECS.
ARCHITECTURES = {"X86_64": "linux/amd64", "ARM64": "linux/arm64"}
ACCOUNT = "$(aws sts get-caller-identity --query Account --output text)"
TOKEN_FILE, TOKEN = "root.token", "import json, sys; print(json.load(sys.stdin)['token'])"  # nosec B105


@dataclass(frozen=True)
class Stage:
    """`when` says what has to be so first, or meanwhile."""

    name: str
    when: str
    commands: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "when": self.when, "commands": list(self.commands)}


def stages(platform: Platform, topology: str, *, backend: str = "") -> tuple[Stage, ...]:
    """All of them. `topology` and `backend` as they are typed."""
    up = ["regionctl", "infra", "up", "--topology", topology]
    up += ["--backend", backend] if backend else []
    return (
        Stage("make", "it waits for certificates until the next two are done", (shlex.join(up),)),
        _delegate(platform),
        _image(platform),
        _way_in(platform),
        Stage(
            "provision",
            "with those variables: roles, schemas, the first shard map, OAuth clients",
            (shlex.join(["regionctl", "up", "--topology", topology]),),
        ),
        _smoke(platform, topology),
    )


def remaining(all_stages: Sequence[Stage], outputs: Mapping[str, Any]) -> tuple[Stage, ...]:
    """What comes after a stack with these `outputs`; without any nothing was made yet.

    Nobody here knows whether the image was pushed, so that stage stays.
    """
    done = {"make", "delegate"} if outputs else set()
    return tuple(stage for stage in all_stages if stage.name not in done)


def lines(todo: Sequence[Stage]) -> list[str]:
    """For people: each stage with its commands."""
    found = []
    for stage in todo:
        found.append(f"  {stage.name} ({stage.when}):")
        found += [f"    {command}" for command in stage.commands]
    return ["", "next, the first time:", *found] if found else []


def _delegate(platform: Platform) -> Stage:
    domain = platform.aws.domain
    zone = (
        f"$(aws route53 list-hosted-zones-by-name --dns-name {domain} "
        "--query 'HostedZones[0].Id' --output text)"
    )
    return Stage(
        "delegate",
        f"while it runs; the parent of {domain} has to name these servers",
        (f"aws route53 get-hosted-zone --id {zone} --query DelegationSet.NameServers",),
    )


def _image(platform: Platform) -> Stage:
    aws, names = platform.aws, platform.names
    region = next(one.name for one in platform.regions if one.serves)
    registry = f"{ACCOUNT}.dkr.ecr.{region}.amazonaws.com"
    image = f'"$REGISTRY"/{names.repository()}:{aws.image_tag}'
    return Stage(
        "image",
        "while it runs; unless this tag is there",
        (
            f"REGISTRY={registry}",
            f"aws ecr get-login-password --region {region} | "
            'docker login --username AWS --password-stdin "$REGISTRY"',
            f"docker build --platform {ARCHITECTURES[aws.architecture]} "
            f"--build-arg VERSION={aws.image_tag} -t {image} .",
            f"docker push {image}",
        ),
    )


def _way_in(platform: Platform) -> Stage:
    """The control plane listens within its own task; a session of AWS leads there."""
    names, region = platform.names, platform.control_region
    cluster, service = names.ecs_cluster(region), names.ecs_service(CONTROL_PLANE)
    ecs = f"aws ecs {{}} --region {region} --cluster {cluster}"
    secret = (
        f"aws secretsmanager get-secret-value --region {region} --secret-id {names.secret(ROOT)} "
        "--query SecretString --output text"
    )
    return Stage(
        "way-in",
        "the session in a terminal of its own; when the task came before its image, first: "
        f"{ecs.format('update-service')} --service {service} --force-new-deployment",
        (
            f"TASK=$({ecs.format('list-tasks')} --service-name {service} "
            "--query 'taskArns[0]' --output text)",
            f'RUNTIME=$({ecs.format("describe-tasks")} --tasks "$TASK" '
            "--query 'tasks[0].containers[0].runtimeId' --output text)",
            f"aws ssm start-session --region {region} "
            f'--target "ecs:{cluster}_${{TASK##*/}}_$RUNTIME" '
            "--document-name AWS-StartPortForwardingSession "
            f"--parameters portNumber={CONTROL_PORT},localPortNumber={CONTROL_PORT}",
            f'(umask 077; {secret} | python3 -c "{TOKEN}" > {TOKEN_FILE})',
            f"export REGIONCTL_SERVER=http://127.0.0.1:{CONTROL_PORT} "
            f"REGIONCTL_TOKEN_FILE={TOKEN_FILE}",
        ),
    )


def _smoke(platform: Platform, topology: str) -> Stage:
    names = platform.names
    return Stage(
        "smoke",
        f"clients log in by the secret {names.secret(CLIENTS)}",
        (
            "regionctl status --exit-status",
            f"curl --fail https://{names.entry()}/api/v1/products",
            shlex.join(
                [
                    *("regionctl", "drill", "run", "region-failure", "--topology", topology),
                    *("--observe", "--dry-run"),
                ]
            ),
        ),
    )
