"""regionctl token: who may ask the control plane for what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cli import render, work
from cli.leaf import READS, Run, group, leaf
from cli.names import known
from cli.render import Table
from cli.when import seconds_of

app = group()


class Role(StrEnum):
    viewer = "viewer"
    operator = "operator"
    admin = "admin"


@leaf(
    app,
    "create",
    shared=(*READS, "reason"),
    examples=(
        "regionctl token create ada --role operator --expires 30d > ada.token",
        "regionctl token create dashboards --role viewer -o json",
    ),
)
async def create(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will use it, for the record.")],
    role: Annotated[
        Role,
        typer.Option(
            "--role",
            help="viewer reads; operator changes; admin also decommissions and makes tokens.",
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="Good for 30d, 12h, 90m; else for ever."),
    ] = None,
) -> None:
    """Make a token. Its text is printed on stdout, this once."""
    seconds = None if expires is None else seconds_of(expires)
    async with work.connect(run) as client:
        token = await client.create_token(name, role.value, seconds=seconds, reason=run.reason)
    until = f"until {render.moment(token['expiresAt'])}" if token["expiresAt"] else "until revoked"
    render.note(f"token {token['id']} of {name}: {role.value}, {until}; it is not shown again")
    document = {"apiVersion": "regionctl/v1", "kind": "Token", **token}
    tables = [Table(("",), [(token["token"],)])]
    render.show(run.output, document, tables=tables, names=[token["token"]])


@leaf(app, "list", examples=("regionctl token list", "regionctl token list -o json"))
async def list_(run: Run) -> None:
    """All tokens, also those that are good no more. Nobody can list their texts."""
    async with work.connect(run) as client:
        found = await client.tokens()
    rows = [
        (
            each["id"],
            each["name"],
            each["role"],
            each["state"],
            each["createdBy"],
            render.moment(each["createdAt"]),
            render.moment(each["expiresAt"]) if each["expiresAt"] else "never",
        )
        for each in found
    ]
    render.show(
        run.output,
        render.listing("TokenList", found),
        tables=[Table(("id", "name", "role", "state", "made by", "made", "expires"), rows)],
        names=[each["id"] for each in found],
    )


@leaf(
    app,
    "revoke",
    shared=(*READS, "reason"),
    examples=("regionctl token revoke 1f2e3d4c --reason 'left the team'",),
)
async def revoke(
    run: Run,
    id: Annotated[
        str,
        typer.Argument(metavar="ID", help="token list shows it.", autocompletion=known("token")),
    ],
) -> None:
    """End a token now. What it was used for stays in the audit log."""
    await run.agree(f"Revoke the token {id}? Whoever uses it is refused from now on.")
    async with work.connect(run) as client:
        token = await client.revoke_token(id, run.reason)
    document = {"apiVersion": "regionctl/v1", "kind": "Token", **token}
    rows = [(token["id"], token["name"], token["state"], token["revokedBy"])]
    tables = [Table(("id", "name", "state", "by"), rows)]
    render.show(run.output, document, tables=tables, names=[token["id"]])
