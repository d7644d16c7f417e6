"""The state directory, its ports and its supervisors' files."""

from __future__ import annotations

import base64
import json
import os
import shlex
import socket
from configparser import RawConfigParser
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local import layout, ports, postgres
from infra.local.layout import Layout
from infra.local.ports import PortTaken
from infra.local.supervisor import Program, render
from infra.lsn import format_lsn, parse_lsn
from infra.topology import load
from runtime.errors import Invalid, NotFound, OperationFailed, Refused

TOPOLOGY = load("two-regions")


def _create(root: Path, **changes: object) -> layout.State:
    asked: dict[str, object] = {"topology": "two-regions", "document": "x", "port_offset": 0}
    return layout.create(root, **(asked | changes))  # type: ignore[arg-type]


@given(offset=st.integers(0, 40_000), shards=st.integers(1, 64))
def test_no_two_servers_share_a_port(offset: int, shards: int) -> None:
    topology = replace(TOPOLOGY, shards=tuple(f"s{number}" for number in range(1, shards + 1)))
    table = ports.table(topology, offset)
    single = [table.control, table.edge_admin, table.supervisor]
    every = [*single, *table.instances.values(), *table.admin.values(), *table.relays.values()]
    every += [port for parts in table.parts.values() for port in parts.values()]
    every += table.restored
    assert len(set(every)) == len(every) - 1  # the edge's admin port is named twice
    assert len(table.all()) == len(set(every))
    assert min(every) == ports.BASE + offset


def test_platforms_that_grow_to_sixteen_shards_do_not_meet() -> None:
    wanted = ports.table(TOPOLOGY.with_shards(16)).all()
    assert max(wanted) - min(wanted) < 250  # so many `make` and the benchmarks look for
    assert max(wanted) - min(wanted) < ports.SPAN


def test_a_bigger_platform_keeps_every_port_of_the_smaller_one() -> None:
    for count in range(1, 16):
        small = ports.table(TOPOLOGY.with_shards(count)).all()
        big = ports.table(TOPOLOGY.with_shards(count + 1)).all()
        assert {port: big[port] for port in small} == small
        assert min(set(big) - set(small)) > max(small)


def test_the_ports_that_people_type_are_the_first_four() -> None:
    table = ports.table(TOPOLOGY, 100)
    assert (table.control, table.edge, table.edge_admin, table.supervisor) == (
        *(18100, 18101),
        *(18102, 18103),
    )


def test_each_region_reaches_every_foreign_database_node_by_a_port_of_its_own_link() -> None:
    relays = ports.table(TOPOLOGY).relays
    assert ("us-west-2", "s1.us-east-1a") in relays
    assert ("us-east-1", "s1.us-west-2a") in relays
    assert ("us-east-1", "s1.us-east-1a") not in relays


def test_a_taken_port_names_the_process_and_the_way_out() -> None:
    with socket.socket() as foreign:
        foreign.bind((ports.HOST, 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        with pytest.raises(PortTaken, match=f"pid {os.getpid()}") as caught:
            ports.require_free({port: "edge"})
    assert "Stop that program" in str(caught.value.hint)
    ports.require_free({port: "edge"})


def test_a_state_directory_is_made_once_and_opened_afterwards(tmp_path: Path) -> None:
    root = tmp_path / "state"
    made = _create(root)
    secrets = layout.read_secrets(Layout(root))
    assert _create(root) == made == layout.read_state(root)
    assert layout.read_secrets(Layout(root)) == secrets
    assert Layout(root).secrets.stat().st_mode & 0o777 == 0o600
    assert len(set(vars(secrets).values())) == len(vars(secrets))


def test_secrets_that_a_platform_lacks_are_made_and_those_it_has_are_kept(tmp_path: Path) -> None:
    old = {"superuser": "a", "replication": "b", "authDatabase": "c", "valkey": "d"}
    Layout(tmp_path).secrets.write_text(json.dumps(old))
    made = layout.read_secrets(Layout(tmp_path))
    assert vars(made).items() >= old.items()
    assert layout.read_secrets(Layout(tmp_path)) == made
    assert len(base64.urlsafe_b64decode(made.tokenKey)) == 32
    assert made.webhookSecret.startswith("whsec_")
    assert len(base64.b64decode(made.webhookSecret.removeprefix("whsec_"))) >= 24


@pytest.mark.parametrize("changes", [{"topology": "another"}, {"port_offset": 7}])
def test_a_state_directory_of_another_platform_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    _create(tmp_path / "state")
    with pytest.raises(Refused, match="two-regions"):
        _create(tmp_path / "state", **changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"format": 2}, "another version"), ({"ownerUid": 4242}, "belongs to user 4242")],
)
def test_a_state_directory_of_another_version_or_owner_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    root = tmp_path / "state"
    _create(root)
    file = Layout(root).state
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(Refused, match=words):
        layout.read_state(root)


def test_a_damaged_state_file_is_refused_and_a_missing_one_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        layout.read_state(tmp_path)
    Layout(tmp_path).state.write_text("{")
    with pytest.raises(Refused, match="damaged"):
        layout.read_state(tmp_path)


def test_a_path_that_a_supervisor_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        _create(tmp_path / "with space")
    with pytest.raises(Invalid):
        _create(tmp_path / "a%b")


def test_only_one_works_on_a_state_directory_at_a_time(tmp_path: Path) -> None:
    with (
        layout.exclusive(Layout(tmp_path)),
        pytest.raises(Refused, match=f"pid {os.getpid()}"),
        layout.exclusive(Layout(tmp_path)),
    ):
        pass
    with layout.exclusive(Layout(tmp_path)):
        pass


def test_a_full_disk_is_a_problem_that_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(OperationFailed, match="No space left") as caught,
        layout.explain_disk(tmp_path),
    ):
        raise OSError(28, "No space left on device")
    assert "df -h" in str(caught.value.hint)


def test_a_file_is_replaced_as_a_whole_and_no_temporary_one_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    layout.replace_file(path, "one")
    layout.replace_file(path, "two", mode=0o644)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_supervisor_file_says_what_each_program_is() -> None:
    programs = [
        Program(
            "s1.us-east-1a", ("/bin/postgres", "-D", "/data"), user="nobody", autorestart=False
        ),
        Program("orders.us-east-1a", ("py", "-m", "x", "50%"), environment={"A": "1%", "B": "2"}),
    ]
    parser = RawConfigParser(inline_comment_prefixes=(";", "#"), strict=True)
    parser.read_string(render(Path("/state/regions/us-east-1"), 18004, "secret", programs))
    assert parser["inet_http_server"]["port"] == "127.0.0.1:18004"
    database, service = (parser[f"program:{each.name}"] for each in programs)
    assert (database["autostart"], database["autorestart"]) == ("false", "false")
    assert database["user"] == "nobody"
    assert shlex.split(service["command"]) == ["py", "-m", "x", "50%%"]
    assert service["environment"] == 'A="1%%",B="2"'
    assert service["autorestart"] == "true"


@given(st.lists(st.sampled_from(sorted(TOPOLOGY.by_id)), unique=True).map(tuple))
def test_synchronous_standbys_are_read_back_as_they_were_written(names: tuple[str, ...]) -> None:
    assert postgres.parse_sync(postgres.render_sync(names)) == names


@given(st.integers(0, 2**64 - 1))
def test_a_position_is_read_as_postgresql_writes_it(position: int) -> None:
    assert parse_lsn(format_lsn(position)) == position
