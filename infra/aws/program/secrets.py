"""Passwords: made by AWS, kept by Secrets Manager, copied to every other region.

Each service has one secret: the JSON object that it reads at its start (`runtime/settings.py`),
with what it needs and nothing more; what a system of somebody else asks for is empty until a person
puts it there. Values are write-only: they are neither in the plan nor in Pulumi's state. What needs
one reads it from where it is kept, so it is the same one whatever happened in between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from infra import oauth_clients
from infra.aws.naming import CLIENTS, ROOT
from infra.aws.program.here import Here, Part
from infra.aws.spec import secrets_of

PASSWORD_LENGTH = 40
RECOVERY_DAYS = 30
VALKEY = "valkey"
# What CloudFront shows the load balancers.
ORIGIN = "origin"
# The administrators' first passwords, by database.
FIRST = "first-passwords"


class Secrets(Part):
    """`after` are the keys of the other regions, without which no copy can be made there."""

    def __init__(
        self, here: Here, key: pulumi.Output[str], after: Sequence[pulumi.Resource]
    ) -> None:
        super().__init__(here, "Secrets")
        self.key = key
        self._after = list(after)
        self._versions: dict[str, aws.secretsmanager.SecretVersion] = {}
        platform = here.platform
        self.keep(VALKEY, {"token": self._random()})
        self.keep(ORIGIN, {"proof": self._random()})
        self.keep(ROOT, {"token": self._random()})
        self.keep(CLIENTS, {name: self._random() for name in oauth_clients.ROLES})
        token = self.read(VALKEY, "token")
        for service in platform.topology.services:
            content: dict[str, pulumi.Input[str]] = {VALKEY: token}
            for name, made in secrets_of(service).items():
                content[name] = self._random() if made else ""
            self.keep(service, content)
        self.keep(FIRST, {name: self._random() for name in platform.every_database})
        self.register_outputs({})

    def read(self, purpose: str, name: str) -> pulumi.Output[str]:
        """The value `name` of a kept secret, from where it is kept. What is made of it needs the
        secret, which the SDK forgets of an answer that is not known yet."""
        version = self._versions[purpose]
        found = aws.secretsmanager.get_secret_version_output(
            secret_id=version.secret_id,
            opts=pulumi.InvokeOutputOptions(parent=self),
        )
        kept = pulumi.Output.all(found.secret_string, version.secret_id)
        return _secret(kept.apply(lambda told: str(json.loads(told[0])[name])))

    def _random(self) -> pulumi.Output[str]:
        """New at every run, but kept at the first only. Valkey takes no other signs than these."""
        made = aws.secretsmanager.get_random_password_output(
            password_length=PASSWORD_LENGTH,
            exclude_punctuation=True,
            opts=pulumi.InvokeOutputOptions(parent=self),
        )
        return _secret(made.random_password)

    def keep(
        self, purpose: str, content: Mapping[str, pulumi.Input[str]]
    ) -> aws.secretsmanager.Secret:
        """A secret with `content` as a JSON object, once; whoever changes it later is left to."""
        here = self.here
        secret = aws.secretsmanager.Secret(
            self.called(f"secret-{purpose}"),
            name=here.names.secret(purpose),
            description=f"{here.names.stem}: {purpose}",
            kms_key_id=self.key,
            recovery_window_in_days=RECOVERY_DAYS,
            replicas=[
                aws.secretsmanager.SecretReplicaArgs(
                    region=region.name, kms_key_id=here.names.key_alias("data")
                )
                for region in here.platform.waiting
            ],
            opts=self.inside(protect=True, depends_on=self._after),
        )
        self._versions[purpose] = aws.secretsmanager.SecretVersion(
            self.called(f"secret-{purpose}"),
            secret_id=secret.id,
            secret_string_wo=_secret(pulumi.Output.json_dumps(content, sort_keys=True)),
            secret_string_wo_version=1,
            opts=self.inside(protect=True),
        )
        return secret


def _secret(value: pulumi.Output[str]) -> pulumi.Output[str]:
    hidden: pulumi.Output[str] = pulumi.Output.secret(value)
    return hidden
