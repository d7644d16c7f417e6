"""The recipe of the image is held to rules here. No test carries it out: `build_image.py` does,
by hand."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from infra.aws import container, images, sessions
from infra.aws.spec import CONTROL_PORT, GATEWAY_PORT, SERVICE_PORT

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of each line, continued ones joined, comments left out."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest) for name, rest in parts]


def test_it_is_read_here_as_docker_reads_it() -> None:
    parser = pytest.importorskip("dockerfile", reason="pip install dockerfile: Docker's own parser")
    read = [
        (one.cmd.upper(), " ".join(one.original.split(None, 1)[1].split()))
        for one in parser.parse_string(TEXT)
    ]
    assert read == [(name, " ".join(rest.split())) for name, rest in instructions()]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def one_of(name: str) -> str:
    (found,) = [rest for each, rest in last_stage() if each == name]
    return found


def test_the_base_is_chosen_from_outside_so_that_a_digest_can_pin_it() -> None:
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert bases == ["${BASE}", "${BASE}"]
    default = TEXT[: TEXT.index("FROM")].rpartition("ARG BASE=")[2].strip()
    assert "@sha256:" in default or re.fullmatch(r"\S+:[\w.]*\d[\w.-]*", default)


def test_whatever_it_copies_is_there_and_is_sent_to_the_builder() -> None:
    allowed = [line[1:] for line in IGNORED.splitlines() if line.startswith("!")]
    refused = [line for line in IGNORED.splitlines() if line and line[0] not in "!#"]
    assert "*" in refused
    copied = [rest.split() for name, rest in instructions() if name == "COPY"]
    sources = [part for parts in copied if not parts[0].startswith("--") for part in parts[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed, f"{source} is kept from the builder"
    assert sorted(sources) == sorted(allowed), "what is sent is also copied"
    assert not [one for one in sources if fnmatch(one, "tests*")]


def test_the_program_is_copied_whole() -> None:
    packages = re.search(r"^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.M)
    assert packages
    for package in json.loads(packages[1]):
        assert f"COPY {package} {package}\n" in TEXT


def test_the_last_stage_builds_nothing_and_runs_as_nobody_in_particular() -> None:
    names = [name for name, _ in last_stage()]
    added = [rest for name, rest in last_stage() if name == "ADD"]
    assert len(added) == 1, "nothing but the authorities of AWS's databases"
    assert "https://truststore.pki.rds.amazonaws.com/" in added[0]
    assert added[0].endswith(f" {images.BUNDLE}")
    assert sessions.BUNDLE == images.BUNDLE
    assert next(rest for name, rest in instructions() if name == "FROM").endswith(" AS build")
    ran = " ".join(rest for name, rest in last_stage() if name == "RUN")
    assert "pip install" not in ran
    assert "apt-get" not in TEXT
    assert "curl" not in TEXT
    user = one_of("USER")
    assert user == f"{images.USER}:{images.USER}"
    order = [name for name in names if name in ("USER", "ENTRYPOINT")]
    assert order == ["USER", "ENTRYPOINT"]
    assert not re.search(r"(?i)(password|secret|token|aws_access)", TEXT)


def test_it_starts_asks_and_writes_as_the_task_definitions_say() -> None:
    assert tuple(json.loads(one_of("ENTRYPOINT"))) == images.ENTRY
    assert json.loads(one_of("VOLUME")) == [str(images.FOLDER)]
    assert images.ENTRY[-1] == container.__name__
    asks = one_of("HEALTHCHECK").partition("CMD ")[2]
    assert json.loads(asks)[: len(images.ENTRY) + 1] == [*images.ENTRY, "health"]
    ports = {int(port) for port in one_of("EXPOSE").split()}
    assert ports == {SERVICE_PORT, GATEWAY_PORT, CONTROL_PORT}
