"""Could `infra up` run here? `python -m infra.aws.engine_doctor < request.json`.

stdout is one line of JSON: `{"checks": [{name, state, detail, mend}]}`; a state is ok, warn or
fail. Nothing is changed: the CLI is asked for its version, plugins and backend, AWS for who asks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.aws.engine_request import Request
from infra.aws.engine_troubles import CLI, INSTALL, installed, plugin_hint
from infra.topology import load
from runtime.errors import Problem

Check = dict[str, str]
SECONDS = 30
SECRETS = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")


def check(name: str, state: str, detail: str, mend: str = "") -> Check:
    return {"name": name, "state": state, "detail": detail, "mend": mend}


def checks(request: Request, regions: Sequence[str]) -> Iterator[Check]:
    """Each check; those that need the CLI are left out without it."""
    for package in ("pulumi", "pulumi-aws", "pulumi-policy", "boto3", "cfn-lint"):
        found = installed(package)
        state = "fail" if found == "?" else "ok"
        yield check(package, state, found, "pip install 'regionctl[aws]'" if found == "?" else "")
    backend = request.backend or os.environ.get("PULUMI_BACKEND_URL", "")
    yield from _backend(backend, regions)
    yield _secrets(request)
    if shutil.which(CLI) is None:
        mend = f"install Pulumi {installed('pulumi')}: {INSTALL}"
        yield check("Pulumi CLI", "fail", "not on the PATH", mend)
    else:
        yield from _cli(backend)
    yield from _credentials(regions)


def _backend(backend: str, regions: Sequence[str]) -> Iterator[Check]:
    if not backend:
        mend = "--backend s3://BUCKET or PULUMI_BACKEND_URL"
        yield check("backend", "fail", "nothing says where the state is", mend)
        return
    inside = [region for region in regions if f"region={region}" in backend]
    if inside:
        mend = "keep the state where no region of the topology is"
        yield check("backend", "warn", f"{backend} is lost together with {inside[0]}", mend)
    else:
        yield check("backend", "ok", backend)


def _secrets(request: Request) -> Check:
    provider = request.secrets_provider
    if provider and provider != "passphrase":
        return check("secrets", "ok", provider)
    if any(name in os.environ for name in SECRETS):
        return check("secrets", "ok", "a passphrase is set")
    mend = "--secrets-provider awskms://alias/NAME?region=REGION, or PULUMI_CONFIG_PASSPHRASE_FILE"
    return check("secrets", "fail", "nothing encrypts the secrets in the state", mend)


def _cli(backend: str) -> Iterator[Check]:
    code, said = _ask(CLI, "version")
    here = said.strip().removeprefix("v")
    wanted = installed("pulumi")
    mend = f"install Pulumi {wanted}: {INSTALL}"
    if code != 0 or not here[:1].isdigit():
        yield check("Pulumi CLI", "fail", _first(said) or "it does not tell its version", mend)
        return
    older = _numbers(here)[:2] < _numbers(wanted)[:2]
    yield check("Pulumi CLI", "warn" if older else "ok", here, mend if older else "")
    yield _plugin(backend)
    if backend:
        code, said = _ask(CLI, "whoami", "--json", PULUMI_BACKEND_URL=backend)
        mend = "is it there, and may you read it?" if code else ""
        state = "fail" if code else "ok"
        yield check("backend opens", state, _first(said) if code else "yes", mend)


def _plugin(backend: str) -> Check:
    code, said = _ask(CLI, "plugin", "ls", "--json", PULUMI_BACKEND_URL=backend)
    try:
        found = [each for each in json.loads(said) if each["name"] == "aws"]
    except (ValueError, KeyError, TypeError):
        return check("AWS plugin", "fail", _first(said) or f"exit code {code}", plugin_hint())
    versions = sorted(str(each.get("version", "?")) for each in found)
    if installed("pulumi-aws") in versions:
        return check("AWS plugin", "ok", installed("pulumi-aws"))
    detail = f"installed: {', '.join(versions)}" if versions else "not installed"
    return check("AWS plugin", "fail", detail, plugin_hint())


def _credentials(regions: Sequence[str]) -> Iterator[Check]:
    """Who AWS says is asking, and whether the regions are there for that account."""
    mend = "aws sso login, or AWS_PROFILE"
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return
    settings = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
    try:
        session = boto3.Session(region_name=regions[0] if regions else None)
        if session.get_credentials() is None:
            yield check("credentials", "fail", "there are none", mend)
            return
        who = session.client("sts", config=settings).get_caller_identity()
        yield check("credentials", "ok", f"account {who['Account']}, {who['Arn']}")
        known = session.client("ec2", config=settings).describe_regions(AllRegions=True)["Regions"]
    except (BotoCoreError, ClientError) as error:
        yield check("credentials", "fail", str(error), mend)
        return
    off = {each["RegionName"] for each in known if each.get("OptInStatus") == "not-opted-in"}
    missing = [name for name in regions if name in off]
    state, detail = ("fail", f"not enabled: {', '.join(missing)}") if missing else ("ok", "enabled")
    yield check("regions", state, detail, "enable them in the account" if missing else "")


def _ask(*words: str, **variables: str) -> tuple[int, str]:
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true", **variables}
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split("-")[0].split(".") if part.isdigit()]


def main() -> int:
    given: Mapping[str, Any] = json.load(sys.stdin)
    try:
        request = Request.read(given)
        regions = [region.name for region in load(request.topology).regions]
    except Problem as problem:
        sys.stdout.write(json.dumps(problem.document()) + "\n")
        return int(problem.exit)
    sys.stdout.write(json.dumps({"checks": list(checks(request, regions))}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
