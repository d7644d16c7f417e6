"""Tells users by mail what became of their orders: at least once, and seen once.

A notice is recorded when the mail server has taken its mail or refused it for good. Between the
two a crash sends it again, under the same Message-ID, which mail servers and programs show once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from runtime.batches import write_by_shard
from runtime.context import Context
from runtime.errors import Unavailable
from runtime.events import STREAM, TOLD, Event
from runtime.notifications import store
from runtime.notifications.mailer import Mailer
from runtime.notifications.rules import Mail, Notice, Record, mail_of, notice_of, skipped
from runtime.shardmap import slot_of

log = logging.getLogger(__name__)

GROUP = "notifications"
BATCH = 50


async def consume(context: Context) -> None:
    """Reads events until cancelled."""
    mailer = Mailer(context.settings, context.clock)

    async def handle(events: Sequence[Event]) -> None:
        await tell(context, mailer, events)

    await context.streams.consume(STREAM, GROUP, handle, kinds=TOLD, batch=BATCH)


async def tell(context: Context, mailer: Mailer, events: Sequence[Event]) -> None:
    """Every one of `events` is recorded: sent, failed or skipped.

    Raises `Poison`, and `Unavailable` when some of them must wait; the others are recorded then.
    """
    found = (notice_of(event) for event in events)
    notices = {notice.event_id: notice for notice in found if notice}
    if not notices:
        return
    records, mails = await _sort(context, list(notices.values()))
    try:
        outcomes = await mailer.send([mail for _, mail in mails])
    except Unavailable:
        await _record(context, records)
        raise
    waiting = []
    for (notice, mail), outcome in zip(mails, outcomes, strict=True):
        if outcome.status == "waiting":
            waiting.append(outcome)
            continue
        ids = (notice.user_id, notice.event_id, notice.kind)
        records.append(Record(*ids, mail.to, outcome.status, outcome.reason))
        if outcome.status == "failed":
            data = {"event": notice.event_id, "reason": outcome.reason}
            log.warning("mail refused for good", extra={"data": data})
    await _record(context, records)
    if waiting:
        raise Unavailable(
            f"{len(waiting)} mails wait: {waiting[0].reason}.",
            hint="They are sent by themselves; look at the mail server if this goes on.",
        )


async def _sort(
    context: Context, notices: Sequence[Notice]
) -> tuple[list[Record], list[tuple[Notice, Mail]]]:
    """Of what is not recorded yet: what needs no mail, and the mails."""
    briefings = await write_by_shard(
        context.shards, context.routing, notices, lambda each: slot_of(each.user_id), store.brief
    )
    recipients = {
        user: recipient for each in briefings for user, recipient in each.recipients.items()
    }
    recorded = frozenset(pair for each in briefings for pair in each.recorded)
    records: list[Record] = []
    mails: list[tuple[Notice, Mail]] = []
    for notice in notices:
        recipient = recipients.get(notice.user_id)
        if (notice.user_id, notice.event_id) in recorded:
            continue
        if notice.subject is None:
            records.append(skipped(notice))
        elif recipient is None:
            records.append(skipped(notice, "no such user"))
        else:
            mails.append((notice, mail_of(notice, recipient)))
    return records, mails


async def _record(context: Context, records: Sequence[Record]) -> None:
    await write_by_shard(
        context.shards, context.routing, records, lambda each: slot_of(each.user_id), store.record
    )
