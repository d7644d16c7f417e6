"""Each database's administrator: a secret with where the writer is, rotated by AWS's own function.

The writer's address follows a failover of a global database to the other region, and so does the
rotation. It runs where secrets are written: in the region that serves when the platform is made.
The control plane's own is not rotated: it stands in another region, whose network the function is
not in, and its one task reads it at its start only, so a new password would lock it out.
"""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from infra.aws.aurora import ADMINISTRATOR, DATABASE
from infra.aws.naming import CONTROL
from infra.aws.program.groups import Groups
from infra.aws.program.here import Here, Part
from infra.aws.program.network import Network
from infra.aws.program.secrets import FIRST, Secrets
from infra.aws.spec import POSTGRES_PORT

ROTATION_DAYS = 30
# For one user of PostgreSQL; from AWS's Serverless Application Repository.
APPLICATION = (
    "arn:aws:serverlessrepo:us-east-1:297356227824:applications/"
    "SecretsManagerRDSPostgreSQLRotationSingleUser"
)
# What the function may not put into a password: what would have to be quoted in a URL.
EXCLUDED = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Administrators(Part):
    """`writers` are the addresses of the writers, by database."""

    def __init__(
        self,
        here: Here,
        network: Network,
        groups: Groups,
        secrets: Secrets,
        writers: Mapping[str, pulumi.Input[str]],
    ) -> None:
        super().__init__(here, "Administrators")
        name = f"{here.names.stem}-rotation"
        function = aws.serverlessrepository.CloudFormationStack(
            self.called("rotation"),
            name=name,
            application_id=APPLICATION,
            capabilities=["CAPABILITY_IAM", "CAPABILITY_RESOURCE_POLICY"],
            parameters={
                "endpoint": f"https://secretsmanager.{here.region.name}.amazonaws.com",
                "functionName": name,
                "kmsKeyArn": secrets.key,
                "excludeCharacters": EXCLUDED,
                "vpcSecurityGroupIds": groups.by["control"].id,
                "vpcSubnetIds": pulumi.Output.all(*[one.id for one in network.private]).apply(
                    lambda found: ",".join(found)
                ),
            },
            opts=self.inside(),
        )
        for database, writer in writers.items():
            secret = secrets.keep(
                here.names.administrator(database),
                {
                    "engine": "postgres",
                    "host": writer,
                    "port": str(POSTGRES_PORT),
                    "dbname": DATABASE,
                    "username": ADMINISTRATOR,
                    "password": secrets.read(FIRST, database),
                },
            )
            if database == CONTROL:
                continue
            aws.secretsmanager.SecretRotation(
                self.called(f"rotation-{database}"),
                secret_id=secret.id,
                rotation_lambda_arn=here.arn("lambda", f"function:{name}"),
                rotation_rules=aws.secretsmanager.SecretRotationRotationRulesArgs(
                    automatically_after_days=ROTATION_DAYS
                ),
                rotate_immediately=False,
                opts=self.inside(depends_on=[function]),
            )
        self.register_outputs({})
