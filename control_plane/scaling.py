"""How many instances of a service a zone should have, without a clock or a socket.

The measure is the share of one processor core that each process of the service uses: a service is
a Python process, which has one core at most, so 100 % is all that one more core could do for it.
Where the topology limits instances of a service to a part of a core, that part is the 100 %.

    growing     ceil(count × used / cpuPercent), when every look of `holdSeconds` asks for more
    shrinking   the same with the most that any look of `coolSeconds` asks for, and only while every
                look finds less than `idlePercent` used

(The ratio, its tolerance, the windows, and what is taken for a missing measure are those of the
Horizontal Pod Autoscaler of Kubernetes: of one that says nothing nothing is assumed when more are
asked for, and a whole core when fewer are.) Looks at another number of instances do not count, so
each change is judged by what came of it before the next; and a count that is right for some load
stays right for it, so a constant load never has it grow and shrink by turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil

from infra.topology_policies import ScalingPolicy
from infra.usage import Usage

TOLERANCE = 0.1
WHOLE_CORE = 100.0


@dataclass(frozen=True)
class Look:
    """One look at a service in a zone: when (seconds on CLOCK_MONOTONIC), how many instances there
    should be, and the share of a core (percent) that each of them used since the look before; of
    one that has just begun, has ended or does not say there is none."""

    at: float
    count: int
    used: tuple[float, ...]

    @property
    def least(self) -> float:
        """What all use together at least."""
        return sum(self.used)

    @property
    def most(self) -> float:
        return self.least + WHOLE_CORE * max(0, self.count - len(self.used))


@dataclass(frozen=True)
class Decision:
    """`count` is how many there should be, `because` why it is that or stays as it is."""

    count: int
    because: str


def decide(
    policy: ScalingPolicy,
    count: int,
    looks: Sequence[Look],
    now: float,
    held: str | None = None,
    whole: str = "a core",
) -> Decision:
    """`looks` oldest first; `held` is why nothing may change at the moment, whatever they say.
    `whole`: what their percentages are of, for people."""
    if held is not None:
        return Decision(count, held)
    least, most = policy.min_instances, policy.max_instances
    if not least <= count <= most:
        return Decision(min(max(count, least), most), f"there are {least} to {most} of a service")
    mine = list(takewhile(lambda look: look.count == count, reversed(looks)))
    if not mine or not mine[0].used:
        return Decision(count, "none of them says what it uses")
    used = mine[0].least / count
    wanted = min(
        (_more(policy, look) for look in _window(mine, now, policy.hold_seconds)), default=0
    )
    if wanted > count:
        if count == most:
            return Decision(count, f"{used:.0f} % of {whole} used, but {most} is the most")
        share = f"{policy.cpu_percent:g} % of {whole}"
        because = f"more than {share} used for {policy.hold_seconds:g} s"
        return Decision(min(wanted, most), because)
    wanted = max(
        (_fewer(policy, look) for look in _window(mine, now, policy.cool_seconds)), default=count
    )
    if max(wanted, least) < count:
        because = (
            f"less than {policy.idle_percent:g} % of {whole} used for {policy.cool_seconds:g} s"
        )
        return Decision(max(wanted, least), because)
    return Decision(count, f"{used:.0f} % of {whole} used")


def _window(newest_first: Sequence[Look], now: float, seconds: float) -> list[Look]:
    """The looks of the last `seconds`; none when they do not reach back that far."""
    if not newest_first or newest_first[-1].at > now - seconds:
        return []
    return [look for look in newest_first if look.at >= now - seconds]


def _more(policy: ScalingPolicy, look: Look) -> int:
    """How many this look asks for, if it asks for more."""
    if look.least <= look.count * policy.cpu_percent * (1 + TOLERANCE):
        return look.count
    return ceil(look.least / policy.cpu_percent)


def _fewer(policy: ScalingPolicy, look: Look) -> int:
    """How many would do, if they are idle."""
    if look.most >= look.count * policy.idle_percent:
        return look.count
    return ceil(look.most / policy.cpu_percent)


def used_between(
    before: Mapping[str, Usage], after: Mapping[str, Usage], seconds: float
) -> dict[str, float]:
    """instance → share of a core (percent) that it used; of a process that is another one: none."""
    return {
        id: WHOLE_CORE * (now.cpu_seconds - then.cpu_seconds) / seconds
        for id, now in after.items()
        if seconds > 0 and (then := before.get(id)) is not None and then.pid == now.pid
    }
