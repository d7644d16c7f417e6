"""A drill on AWS: planned here, from the topology alone or from a look at AWS; run over there.

Who breaks a region in an account agrees to each consequence first. The drill itself is carried out
by the control plane of that platform, which has the probe, the network and the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cli import progress, render
from cli.leaf import Run
from cli.render import Table
from cli.settings import Settings
from runtime.errors import Invalid, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from control_plane.client import Client
    from infra.topology import Topology

JSON = dict[str, Any]


async def plan(name: str, args: Mapping[str, Any], *, look: bool) -> JSON:
    """The plan of the drill `args` on the topology `name`, with "mode", "basis" and "approvals".

    `look` asks AWS how things are, and CloudWatch how far behind the other region is; without it a
    region that is to be lost is taken for the one that serves. Raises `NotFound` for a region that
    is not there, `Refused` for what AWS does not let anybody do, and for a platform that is not
    whole.
    """
    from control_plane import drills
    from infra.aws import approvals, designed
    from infra.topology import load

    topology = load(name)
    if topology.aws is None:
        raise Invalid(
            f"{topology.name} is no topology on AWS: its own control plane plans its drills.",
            hint="leave --topology out",
        )
    target = args.get("target")
    home = target if target in {region.name for region in topology.regions} else None
    observed, known = designed.observed(topology, home), designed.shard_map(topology, home)
    seen = None
    if look:
        observed, known, seen = await _look(topology)
    made = drills.plan(topology, observed, known, **args).to_json()
    approvals.check(made["target"], made["steps"])
    return {
        **made,
        "mode": "planned",
        "topology": topology.name,
        "basis": "design" if seen is None else f"observed, {seen}",
        "approvals": approvals.needed(topology, made),
    }


async def _look(topology: Topology) -> tuple[Any, Any, str]:
    """AWS as it is, the newest map of a region, and what that is worth (applied, emulated)."""
    from infra.aws import maps, observe
    from infra.aws.site import site_of

    site = site_of(topology)
    observed = await observe.observe(site)
    try:
        known = await maps.newest(site)
    except (Unavailable, NotFound) as error:
        raise Refused(
            f"No shard map of {topology.name} is in any region: it is not provisioned.",
            hint="REGIONCTL_SERVER=URL regionctl up has its control plane do it; leave --observe "
            "out to plan from the design",
        ) from error
    return observed, known, site.cloud.mode


def show(run: Run, made: JSON) -> None:
    """The steps, what has to be agreed to, and the loss to expect."""
    document = {"apiVersion": "regionctl/v1", **made, "kind": "Plan", "verb": made["kind"]}
    rows = [
        (number, step["name"], progress.subject(step["args"]))
        for number, step in enumerate(made["steps"], start=1)
    ]
    agreed = [(each["name"], each["for"], each["consequence"]) for each in made["approvals"]]
    foot = [f"expected loss: {loss(made)}", f"{made['mode']}; basis: {made['basis']}"]
    recovery = [
        (number, step["name"], progress.subject(step["args"]))
        for number, step in enumerate(made["expected"].get("recovery", []), start=1)
    ]
    tables = [
        Table(
            ("#", "step", "about"), rows, title=f"plan: drill {made['target']}: {len(rows)} steps"
        ),
        *([Table(("#", "step", "about"), recovery, title="run-recovery")] if recovery else []),
        Table(("approval", "for", "what it means"), agreed, foot=foot),
    ]
    render.show(run.output, document, tables=tables, names=[step["name"] for step in made["steps"]])


def announce(made: JSON) -> None:
    """The same in words, for whoever is asked next: stdout is for the report."""
    render.note(f"drill {made['target']} on {made['topology']}: {len(made['steps'])} steps")
    for step in made["steps"]:
        render.note(f"  {step['name']} {progress.subject(step['args'])}".rstrip())
    for each in made["approvals"]:
        render.note(f"to agree to: {each['name']}: {each['consequence']}")
    render.note(f"expected loss: {loss(made)}")


def loss(made: JSON) -> str:
    seconds = made["expected"].get("lossSeconds")
    if seconds is not None:
        return render.seconds(seconds)
    if made["basis"] == "design":
        return "unknown: AWS was not asked (--observe)"
    return "unknown: CloudWatch has no replication lag of the last minutes"


async def approve(run: Run, made: JSON) -> None:
    """Each consequence is agreed to, the gravest by typing its name.

    Raises `Refused` or `Declined`; also when no control plane is named that could act.
    """
    lossy = any(each["for"] == "loss" for each in made["approvals"])
    if lossy and not run.reason.strip():
        raise Refused(
            "A drill that may lose orders needs a reason; the report will quote it.",
            hint="add --reason 'why'",
        )
    for number, each in enumerate(made["approvals"]):
        if number == 0 and lossy:
            await run.insist(each["name"], each["consequence"])
        else:
            await run.agree(f"{each['consequence']} Agreed?")
    if Settings.read().server is None and run.state_dir is None:
        raise Refused(
            f"Nothing was begun: the control plane of {made['topology']} runs inside its network, "
            "and its address is not set.",
            hint="aws ssm start-session --target ecs:CLUSTER_TASK_RUNTIMEID --document-name "
            "AWS-StartPortForwardingSession --parameters portNumber=18000,localPortNumber=18000; "
            "then REGIONCTL_SERVER=http://127.0.0.1:18000 REGIONCTL_TOKEN_FILE=… (the secret "
            "root), and the same again",
        )


async def require(client: Client, name: str) -> None:
    """Raises `Refused` unless the control plane that is meant runs this very topology."""
    runs = (await client.topology())["name"]
    if runs != name:
        raise Refused(
            f"The control plane at {client.address} runs {runs}, not {name}: nothing was begun.",
            hint="set REGIONCTL_SERVER to the control plane inside that platform's network",
        )
