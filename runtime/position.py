"""What a reader sends back to see a write: where the write was done, and as which transaction."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import Invalid, TooEarly
from runtime.shardmap import Placement, ShardMap


@dataclass(frozen=True)
class Position:
    """A write that a reader wants to see: its database, epoch, and 64-bit transaction id."""

    database: str
    epoch: int
    xid: int

    def __str__(self) -> str:
        return f"{self.database}.{self.epoch}.{self.xid}"

    @staticmethod
    def parse(text: str) -> Position:
        """Raises `Invalid`."""
        database, _, rest = text.partition(".")
        epoch, _, xid = rest.partition(".")
        if not (
            database
            and epoch.isascii()
            and epoch.isdigit()
            and xid.isascii()
            and xid.isdigit()
            and len(epoch) < 19
            and len(xid) < 20
        ):
            raise Invalid(
                "X-Regionctl-Position is not <database>.<epoch>.<transaction>.",
                hint="Send it back exactly as the write's answer had it, or leave it out.",
            )
        return Position(database, int(epoch), int(xid))

    def newer_than(self, shard_map: ShardMap) -> bool:
        """Whether the write was done under an owner that `shard_map` does not know yet.

        Whatever the slot: epochs of one map are drawn from one counter.
        """
        return self.epoch >= shard_map.next_epoch()

    def unknown_to(self, place: Placement) -> TooEarly:
        return TooEarly(
            f"This service knows {self.database} at epoch {place.epoch}; the write to be seen is "
            f"of epoch {self.epoch}.",
            hint="Try again. If it lasts, `regionctl status` says which region has an old map.",
            extra={"retryAfter": 1},
        )
