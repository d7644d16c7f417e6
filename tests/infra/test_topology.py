"""A topology is read whole or refused with file, line, field and what is allowed there."""

from __future__ import annotations

import re

import pytest

from infra.topology import BUILT_IN, load, parse
from infra.topology_policies import BackupPolicy
from runtime.errors import Invalid, NotFound

TEXT = (BUILT_IN / "two-regions.yaml").read_text()


def refused(text: str) -> str:
    with pytest.raises(Invalid) as caught:
        parse(text, "mine.yaml")
    assert "mine.yaml" in str(caught.value.hint)
    assert str(BUILT_IN / "two-regions.yaml") in str(caught.value.hint)
    return caught.value.detail


def line_of(text: str) -> int:
    return TEXT[: TEXT.index(text)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("role: dr", "role: drr", "regions.1.role: must be 'primary' or 'dr'; here it is 'drr'"),
        ("zones: [a, b]", "zones: [a, 1]", "regions.0.zones.1: must be text; here it is 1"),
        ("zones: [a, b]", "zones: [a, AB]", "must be one lower-case letter, such as a; here"),
        ("zones: [a]}", "zones: []}", "regions.1.zones: must have at least one entry"),
        ("shards: 2", "shards: 0", "shards: must be 1 or more; here it is 0"),
        ("shards: 2", "shards: 65", "shards: must be 64 or less; here it is 65"),
        ("shards: 2", "shards: two", "shards: must be a whole number; here it is 'two'"),
        ("shards: 2", "shard: 2", "there is no such field; did you mean shards? Known here: api"),
        ("automatic: true", "automatic: 7", "failover.automatic: must be true or false; here"),
        ("minInstances: 1", "minInstances: 0", "scaling.minInstances: must be 1 or more; here"),
        ("minInstances: 1", "minInstances: 5", "scaling: minInstances is 5, which is more than"),
        ("idlePercent: 25", "idlePercent: 70", "scaling: idlePercent is 70; it must be less"),
        ("cpuPercent: 70", "cpuPercent: 95", "scaling.cpuPercent: must be 90 or less; here it"),
        ("name: two-regions", "name: My Own", "name: must be a lower-case letter, then"),
        (
            "provider: local",
            "provider: azure",
            "must be 'local', 'memory' or 'aws'; here it is 'azure'",
        ),
        (
            "[auth, users, orders, payments, inventory, notifications]",
            "users",
            "services: must be a list, such as [a, b]; here",
        ),
        ("role: dr", "role: primary", "exactly one region has role primary, here 2 have"),
        ("zones: [a, b]", "zones: [a]", "regions: us-east-1 needs two zones"),
    ],
)
def test_each_fault_is_told_with_its_line_and_what_is_allowed(
    old: str, new: str, said: str
) -> None:
    told = refused(TEXT.replace(old, new, 1))
    assert said in told
    whole = "exactly" in said or "needs two" in said
    line = line_of("regions:\n") + 1 if whole else line_of(old)
    assert f"mine.yaml:{line}: " in told


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("external: {paymentGateway: pay}", "external.paymentGateway: must be an address such as"),
        ("external: {smtp: mail.example.com}", "external.smtp: must be host:port, such as mail"),
        ("external: {secrets: keys.json}", "external.secrets: must be the whole path of a file"),
        ("external: {mail: x}", "external.mail: there is no such field; Known here: paymentG"),
        ("external: {smtpTls: on}", "external.smtpTls: must be 'none', 'starttls' or 'tls'"),
        ("backups: {keepFull: 0}", "backups.keepFull: must be 1 or more; here it is 0"),
        ("backups: {spoolMegabytes: 1}", "backups.spoolMegabytes: must be 64 or more; here it"),
        ("backups: {fullEverySeconds: 5}", "backups.fullEverySeconds: must be 60 or more; here"),
        ("backups: {fullEvery: 60}", "backups.fullEvery: there is no such field; did you mean"),
        ("backups: daily", "backups: must have the fields fullEverySeconds, incremental"),
        ("allowedOrigins: [shop]", "allowedOrigins.0: must be a web origin such as https://"),
        ("otlpEndpoint: 4318", "otlpEndpoint: must be text; here it is 4318"),
    ],
)
def test_a_fault_in_an_optional_field_is_told_as_well(field: str, said: str) -> None:
    told = refused(TEXT + field + "\n")
    assert said in told
    assert f"mine.yaml:{TEXT.count(chr(10)) + 1}: " in told


def test_backups_have_a_schedule_that_a_topology_may_change() -> None:
    policy = parse(TEXT, "mine.yaml").backups
    assert policy == BackupPolicy(604_800, 86_400, 4, 2048)
    own = "backups: {fullEverySeconds: 3600, incrementalEverySeconds: 60, keepFull: 2}\n"
    assert parse(TEXT + own, "mine.yaml").backups == BackupPolicy(3600, 60, 2, 2048)


@pytest.mark.parametrize("count", range(1, 17))
def test_one_more_shard_only_appends_to_the_instances_in_growing_order(count: int) -> None:
    topology = parse(TEXT, "mine.yaml").with_shards(count)
    small = topology.in_growing_order()
    assert set(small) == set(topology.instances())
    assert topology.with_shards(count + 1).in_growing_order()[: len(small)] == small


def test_a_stand_in_runs_only_for_a_system_without_an_address() -> None:
    peers = [spec.id for spec in parse(TEXT, "mine.yaml").instances(kind="peer")]
    assert peers == ["payment-gateway", "mailbox"]
    given = "external: {paymentGateway: 'https://pay.example.com/', smtp: 'mail.example.com:587'}"
    topology = parse(TEXT + given + "\n", "mine.yaml")
    assert [spec.id for spec in topology.instances(region="")] == ["edge"]
    assert topology.external.payment_gateway == "https://pay.example.com"
    assert topology.external.smtp_tls == "starttls"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mine.yaml:1: the whole document: must have the fields apiVersion, kind"),
        ("- a", "here it is a list"),
        ("kind: [\n", "mine.yaml:2:1: this is not YAML"),
        ("kind: Topology", "shards: this field is missing"),
    ],
)
def test_what_is_no_topology_at_all_is_told_in_plain_words(text: str, said: str) -> None:
    told = refused(text)
    assert said in told
    assert not re.search(r"Input should|_Document|Value error|unicode string", told)


def test_a_name_that_is_not_built_in_and_a_file_that_is_not_there_are_told_apart() -> None:
    with pytest.raises(NotFound, match="No topology 'nowhere' is built in"):
        load("nowhere")
    with pytest.raises(NotFound, match=r"Cannot read the topology nowhere.yaml: No such file"):
        load("nowhere.yaml")
