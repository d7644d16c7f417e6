"""What AWS would answer in the double's world: what it makes up, and the secrets that it keeps.

Only what the program asks for has an answer; the test of the whole program finds what is missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

JSON = dict[str, Any]
ACCOUNT = "123456789012"
SECRET = "aws:secretsmanager/secretVersion:SecretVersion"
# "NAME" is the resource's name.
MADE_UP: Mapping[str, Mapping[str, Any]] = {
    "aws:cloudfront/distribution:Distribution": {
        "domainName": "NAME.cloudfront.example",
        "hostedZoneId": "ZEDGE",
    },
    "aws:elasticache/replicationGroup:ReplicationGroup": {
        "primaryEndpointAddress": "NAME.cache.example"
    },
    "aws:kms/key:Key": {"keyId": "mrk-NAME"},
    "aws:kms/replicaKey:ReplicaKey": {"keyId": "mrk-NAME"},
    "aws:lb/loadBalancer:LoadBalancer": {
        "arnSuffix": "app/NAME/1",
        "dnsName": "NAME.elb.example",
        "zoneId": "ZELB",
    },
    "aws:lb/targetGroup:TargetGroup": {"arnSuffix": "targetgroup/NAME/1"},
    "aws:rds/cluster:Cluster": {"endpoint": "NAME.rds.example"},
    "aws:rds/globalCluster:GlobalCluster": {"endpoint": "NAME.global.rds.example"},
    "aws:s3/bucket:Bucket": {"bucketRegionalDomainName": "NAME.s3.example"},
    "aws:route53/record:Record": {"fqdn": "NAME.example"},
    "aws:route53/zone:Zone": {"zoneId": "ZNAME", "nameServers": ["ns-1.example", "ns-2.example"]},
}


def made_up(type: str, name: str, inputs: Mapping[str, Any]) -> JSON:
    """The outputs of a resource that exists, beside its inputs."""
    found = {key: _named(value, name) for key, value in MADE_UP.get(type, {}).items()}
    if type == "aws:acm/certificate:Certificate":
        found["domainValidationOptions"] = [
            {
                "domainName": host,
                "resourceRecordName": f"_proof.{host}",
                "resourceRecordType": "CNAME",
                "resourceRecordValue": "proof.acm.example",
            }
            for host in (inputs["domainName"], *inputs.get("subjectAlternativeNames", ()))
        ]
    return {"id": f"{name}-id", "arn": f"arn:aws:double:::{name}", **found}


def _named(value: Any, name: str) -> Any:
    return value.replace("NAME", name) if isinstance(value, str) else value


def written(inputs: Mapping[str, Any]) -> str:
    """The text of a secret's version, which travels wrapped and is in no state."""
    return str(inputs["secretStringWo"]["value"])


def answer(token: str, asked: Mapping[str, Any], kept: Mapping[str, str]) -> JSON:
    """To a question of the program. Raises `KeyError` when AWS would know nothing of it."""
    return ANSWERS[token](asked, kept)


ANSWERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, str]], JSON]] = {
    "aws:index/getCallerIdentity:getCallerIdentity": lambda _asked, _kept: {
        "accountId": ACCOUNT,
        "id": ACCOUNT,
    },
    "aws:ec2/getManagedPrefixList:getManagedPrefixList": lambda _asked, _kept: {"id": "pl-edge"},
    "aws:secretsmanager/getRandomPassword:getRandomPassword": lambda _asked, _kept: {
        "id": "-",
        "randomPassword": secrets.token_hex(16),
    },
    "aws:secretsmanager/getSecretVersion:getSecretVersion": lambda asked, kept: {
        "id": asked["secretId"],
        "secretString": kept[asked["secretId"]],
    },
}
