"""A topology is read whole or refused with file, line, field and what is allowed there."""

from __future__ import annotations

import re

import pytest

from infra.topology import BUILT_IN, load, parse
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
        ("name: two-regions", "name: My Own", "name: must be a lower-case letter, then"),
        ("provider: local", "provider: aws", "must be 'local' or 'memory'; here it is 'aws'"),
        ("[users, orders, inventory]", "users", "services: must be a list, such as [a, b]; here"),
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
